// The rig's OIDC issuer: the real oidc-provider over TLS, with what tests need beside it.
//
// env: HOST, an IPv4 address; PORT, TLS_CERT, TLS_KEY; TTL of tokens in seconds; USERS {"name": ["group", …]}; KEYS,
// a file that keeps the signing keys over a restart. Any user may log in; the password is the name followed by "-pw".
//
// Only for tests:
//   POST /test/mint {claims, header, alg, kid, foreign}   a token signed now; `foreign` with a key that is not published
//   POST /test/rotate?drop=1                     new keys first in the key set; drop=1 forgets the old ones
//   POST /test/fail {jwks, discovery, delay_ms}  the next N answers are 500, or late
//   GET  /test/stats                             how often the key set and the discovery document were fetched
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import https from 'node:https';
import { SignJWT, importJWK } from 'jose';
import Provider, { errors } from 'oidc-provider';

const env = (name) => process.env[name] ?? (() => { throw new Error(`${name} is not set`); })();
const port = Number(env('PORT'));
const ttl = Number(env('TTL'));
const users = JSON.parse(env('USERS'));
const host = env('HOST');
const issuer = `https://${host}:${port}`;

const jwk = (alg) => {
  const { privateKey } = alg === 'ES256'
    ? generateKeyPairSync('ec', { namedCurve: 'P-256' }) : generateKeyPairSync('rsa', { modulusLength: 2048 });
  return { ...privateKey.export({ format: 'jwk' }), alg, use: 'sig', kid: `${alg}-${randomUUID().slice(0, 8)}` };
};
const pair = () => [jwk('RS256'), jwk('ES256')];

let keys = existsSync(env('KEYS')) ? JSON.parse(readFileSync(env('KEYS'), 'utf8')) : pair();
const keep = () => writeFileSync(env('KEYS'), JSON.stringify(keys), { mode: 0o600 });
keep();

const claims = (sub) => ({ sub, preferred_username: sub, email: `${sub}@example.test`, email_verified: true, groups: users[sub] ?? [] });

const build = () => {
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [{
      client_id: 'decklog', token_endpoint_auth_method: 'none', application_type: 'native', id_token_signed_response_alg: 'RS256',
      redirect_uris: ['http://127.0.0.1/callback', 'http://localhost:8000', 'http://localhost:18000'],
      grant_types: ['authorization_code', 'refresh_token', 'password', 'urn:ietf:params:oauth:grant-type:device_code'],
    }],
    findAccount: (_ctx, sub) => ({ accountId: sub, claims: () => claims(sub) }),
    claims: { openid: ['sub', 'groups', 'email', 'email_verified', 'preferred_username'] },
    conformIdTokenClaims: false, // claims go into the ID token itself
    pkce: { required: () => false },
    ttl: { IdToken: ttl, AccessToken: ttl, DeviceCode: 300, Session: 3600, Grant: 3600, Interaction: 300, RefreshToken: 3600 },
    cookies: { keys: ['test-only'] },
    enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256'] },
    features: { devInteractions: { enabled: true }, deviceFlow: { enabled: true } },
  });
  // The password grant is not part of the library.
  provider.registerGrantType('password', async (ctx) => {
    const { username, password } = ctx.oidc.params;
    if (!username || password !== `${username}-pw`) throw new errors.InvalidGrant('invalid credentials');
    const { client } = ctx.oidc;
    const grant = new provider.Grant({ accountId: username, clientId: client.clientId });
    grant.addOIDCScope('openid');
    const grantId = await grant.save();
    const access = new provider.AccessToken({ accountId: username, client, grantId, gty: 'password', scope: 'openid' });
    const id = new provider.IdToken(claims(username), { ctx });
    id.scope = 'openid';
    id.mask = { sub: null, groups: null, email: null, email_verified: null, preferred_username: null };
    ctx.body = {
      access_token: await access.save(), expires_in: access.expiration, token_type: 'Bearer', scope: 'openid',
      id_token: await id.issue({ use: 'idtoken' }),
    };
  }, ['username', 'password', 'scope']);
  return provider.callback();
};
let provider = build(); // the library cannot change its keys: a rotation builds another provider

const stats = { jwks: 0, discovery: 0 };
const fail = { jwks: 0, discovery: 0, delay_ms: 0 };
const body = async (req) => { let text = ''; for await (const chunk of req) text += chunk; return text ? JSON.parse(text) : {}; };
const json = (res, value, code = 200) => { res.writeHead(code, { 'content-type': 'application/json' }); res.end(JSON.stringify(value)); };

async function mint({ claims: asked = {}, header = {}, alg = 'RS256', kid, foreign }) {
  const key = foreign ? jwk(alg) : keys.find((k) => k.alg === alg && (!kid || k.kid === kid));
  const now = Math.floor(Date.now() / 1000);
  const all = { iss: issuer, aud: 'decklog', iat: now, exp: now + ttl, ...claims(asked.sub ?? 'alice'), ...asked };
  for (const [name, value] of Object.entries(all)) if (value === null) delete all[name];
  return new SignJWT(all).setProtectedHeader({ alg, kid: kid ?? key.kid, typ: 'JWT', ...header }).sign(await importJWK(key, alg));
}

async function handle(req, res) {
  const url = new URL(req.url, issuer);
  const kind = { '/jwks': 'jwks', '/.well-known/openid-configuration': 'discovery' }[url.pathname];
  if (kind) {
    stats[kind] += 1;
    if (fail.delay_ms) await new Promise((resolve) => { setTimeout(resolve, fail.delay_ms); });
    if (fail[kind] > 0) { fail[kind] -= 1; return json(res, { error: 'test' }, 500); }
  }
  switch (url.pathname) {
    case '/test/stats': return json(res, stats);
    case '/test/fail': return json(res, Object.assign(fail, await body(req)));
    case '/test/mint': return json(res, { token: await mint(await body(req)) });
    case '/test/rotate':
      keys = [...pair(), ...(url.searchParams.get('drop') ? [] : keys)];
      keep();
      provider = build();
      return json(res, { keys: keys.map(({ kid, alg }) => ({ kid, alg })) });
    default: return provider(req, res);
  }
}
const tls = { cert: readFileSync(env('TLS_CERT')), key: readFileSync(env('TLS_KEY')) };
https.createServer(tls, (req, res) => handle(req, res).catch((error) => json(res, { error: String(error) }, 500)))
  .listen(port, host, () => console.log(`ready ${issuer}`));
