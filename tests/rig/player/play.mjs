// Plays a cast in asciinema's player in a real browser, and tells what is to be seen at the end.
//
//   node play.mjs CHROMIUM CAST SCREENSHOT
//
// The page is served from loopback with the strictest policy under which the player works. One line of
// JSON goes to standard output: what the terminal shows, and whatever went wrong.

import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { chromium } from 'playwright-core';

const [executablePath, cast, screenshot] = process.argv.slice(2);
const bundle = (file) =>
  readFile(new URL(`node_modules/asciinema-player/dist/bundle/${file}`, import.meta.url));

const policy = [
  "default-src 'none'",
  "script-src 'self' 'wasm-unsafe-eval'",
  "style-src 'self'",
  "connect-src 'self'",
  "font-src 'self' data:",
  "img-src 'self' data:",
].join('; ');

const page = `<!doctype html><meta charset="utf-8"><title>player</title><link rel="icon" href="data:,">
<link rel="stylesheet" href="player.css"><body><div id="player"></div>
<script src="player.js"></script><script src="start.js"></script>`;

const start = `const player = AsciinemaPlayer.create('cast', document.getElementById('player'), {
  autoPlay: true, idleTimeLimit: 0.2, fit: false, controls: false,
});
player.addEventListener('ended', () => { document.body.className = 'ended'; });`;

const files = {
  '/': ['text/html', page],
  '/start.js': ['text/javascript', start],
  '/player.js': ['text/javascript', await bundle('asciinema-player.min.js')],
  '/player.css': ['text/css', await bundle('asciinema-player.css')],
  '/cast': ['application/x-asciicast', await readFile(cast)],
};

const server = createServer((request, response) => {
  const file = files[request.url];
  const headers = { 'content-type': file?.[0] ?? 'text/plain', 'content-security-policy': policy };
  response.writeHead(file ? 200 : 404, headers).end(file?.[1]);
});
await new Promise((listening) => server.listen(0, '127.0.0.1', listening));
const origin = `http://127.0.0.1:${server.address().port}`;

const browser = await chromium.launch({ executablePath, args: ['--no-sandbox'] });
try {
  const tab = await browser.newPage({ viewport: { width: 900, height: 500 } });
  const problems = [];
  tab.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) problems.push(`console: ${message.text()}`);
  });
  tab.on('pageerror', (error) => problems.push(`error: ${error}`));
  tab.on('request', (request) => {
    if (!request.url().startsWith(`${origin}/`) && !request.url().startsWith('data:')) {
      problems.push(`request: ${request.url()}`);
    }
  });
  await tab.goto(`${origin}/`);
  await tab.locator('body.ended').waitFor({ timeout: 60_000 });
  const lines = await tab.locator('.ap-term .ap-line').evaluateAll((all) => all.map((line) => line.textContent));
  const links = await tab.locator('#player a[href]').evaluateAll((all) => all.map((link) => link.href));
  const title = await tab.title();
  await tab.screenshot({ path: screenshot });
  console.log(JSON.stringify({ lines, links, title, problems }));
} finally {
  await browser.close();
  server.close();
}
