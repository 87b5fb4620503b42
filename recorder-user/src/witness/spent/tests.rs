use super::*;
use crate::witness::sample::KernelSample;

const MS: u64 = 1_000_000;

/// Times of an exchange in ms; each is a delay that somebody caused.
#[derive(Clone, Copy, Default)]
struct Delays {
    head_queue: u64,
    identify: u64,
    connect: u64,
    body_wait: u64,
    body_queue: u64,
    request_taking: u64,
    record: u64,
    answer: u64,
    answer_queue: u64,
    response_wait: u64,
    response_queue: u64,
    response_taking: u64,
    encode: u64,
}

/// Plays the delays one after the other, as the gateway and the kernel would see them.
fn play(delays: Delays, tier_tells: bool) -> Course {
    let mut now = 1_000;
    let (mut client, mut upstream) = (KernelSample::default(), KernelSample::default());
    let look = |now: u64, kernel: KernelSample| Sample {
        at_ns: now * MS,
        kernel: tier_tells.then_some(kernel),
        ..Sample::default()
    };
    let client_from = look(now, client);
    now += delays.head_queue;
    client.queue_ns += delays.head_queue * MS;
    client.last_in_ns = now * MS;
    let client_head = look(now, client);
    now += delays.identify;
    let forwarded = now;
    now += delays.connect;
    let upstream_from = look(now, upstream);
    now += delays.body_wait + delays.body_queue;
    client.queue_ns += delays.body_queue * MS;
    now += delays.request_taking + delays.record;
    let handed = now;
    upstream.out_calls += 1;
    upstream.last_out_ns = now * MS;
    now += delays.answer + delays.answer_queue;
    upstream.queue_ns += delays.answer_queue * MS;
    upstream.last_in_ns = now * MS;
    let upstream_head = look(now, upstream);
    now += delays.response_wait + delays.response_queue;
    upstream.queue_ns += delays.response_queue * MS;
    now += delays.response_taking + delays.encode;
    let looks = |from, head, to| Looks { from, head, to, interleaved: false };
    Course {
        client: looks(client_from, client_head, look(now, client)),
        upstream: Some(looks(upstream_from, upstream_head, look(now, upstream))),
        forwarded_ns: Some(forwarded * MS),
        handed_ns: Some(handed * MS),
        request: Pace {
            waiting_ns: (delays.body_wait + delays.body_queue) * MS,
            taking_ns: delays.request_taking * MS,
        },
        response: Pace {
            waiting_ns: (delays.response_wait + delays.response_queue) * MS,
            taking_ns: delays.response_taking * MS,
        },
    }
}

/// Every delay alone, and then all together: each lands where its cause is, and nothing is lost.
#[test]
fn each_delay_lands_with_its_cause() {
    type Set = fn(&mut Delays, u64);
    let causes: [(&str, Set, &str); 13] = [
        ("head queue", |d, ms| d.head_queue = ms, "queue"),
        ("identify", |d, ms| d.identify = ms, "gateway"),
        ("connect", |d, ms| d.connect = ms, "upstream"),
        ("body wait", |d, ms| d.body_wait = ms, "client"),
        ("body queue", |d, ms| d.body_queue = ms, "queue"),
        ("request taking", |d, ms| d.request_taking = ms, "upstream"),
        ("record", |d, ms| d.record = ms, "gateway"),
        ("answer", |d, ms| d.answer = ms, "upstream"),
        ("answer queue", |d, ms| d.answer_queue = ms, "queue"),
        ("response wait", |d, ms| d.response_wait = ms, "upstream"),
        ("response queue", |d, ms| d.response_queue = ms, "queue"),
        ("response taking", |d, ms| d.response_taking = ms, "client"),
        ("encode", |d, ms| d.encode = ms, "gateway"),
    ];
    let mut all = Delays::default();
    let mut expected = Spent { queue: Some(0), ..Spent::default() };
    for (index, (what, set, bucket)) in causes.into_iter().enumerate() {
        for ms in [0, 50, 150] {
            let mut delays = Delays::default();
            set(&mut delays, ms);
            let spent = play(delays, true).spent();
            let us = ms * 1_000;
            let mut only = Spent { queue: Some(0), ..Spent::default() };
            *part(&mut only, bucket) = us;
            assert_eq!(spent, only, "{what} {ms} ms");
        }
        let ms = index as u64 + 1;
        set(&mut all, ms);
        *part(&mut expected, bucket) += ms * 1_000;
    }
    let spent = play(all, true).spent();
    assert_eq!(spent, expected);
    assert_eq!(spent.total(), (1..=13).sum::<u64>() * 1_000);
}

fn part<'s>(spent: &'s mut Spent, bucket: &str) -> &'s mut u64 {
    match bucket {
        "queue" => spent.queue.as_mut().expect("the tier tells"),
        "client" => &mut spent.client,
        "upstream" => &mut spent.upstream,
        _ => &mut spent.gateway,
    }
}

#[test]
fn without_the_kernels_times_queues_are_part_of_what_waits_for_them() {
    let delays = Delays { answer: 50, answer_queue: 30, body_queue: 20, ..Delays::default() };
    let spent = play(delays, false).spent();
    let expected = Spent { queue: None, client: 20_000, upstream: 80_000, gateway: 0 };
    assert_eq!(spent, expected);
}

#[test]
fn the_gateways_own_answer_is_its_own_time() {
    let mut course = play(Delays { identify: 50, ..Delays::default() }, true);
    (course.upstream, course.forwarded_ns, course.handed_ns) = (None, None, None);
    let expected = Spent { queue: Some(0), client: 0, upstream: 0, gateway: 50_000 };
    assert_eq!(course.spent(), expected);
}

#[test]
fn an_api_server_that_never_answers_is_waited_for() {
    let mut course = play(Delays { answer: 150, ..Delays::default() }, true);
    course.upstream = None;
    assert_eq!(course.spent().upstream, 150_000);
}

#[test]
fn an_answer_before_the_bodys_end_takes_no_time_twice() {
    let mut course = play(Delays { body_wait: 50, answer: 30, ..Delays::default() }, true);
    // The head came while the client was still sending.
    let upstream = course.upstream.as_mut().expect("answered");
    upstream.head.at_ns = course.forwarded_ns.expect("forwarded") + 10 * MS;
    upstream.head.kernel.as_mut().expect("seen").last_in_ns = upstream.head.at_ns;
    let spent = course.spent();
    assert_eq!((spent.client, spent.upstream, spent.total()), (50_000, 0, 80_000));
}

/// A write that waits for a processor is the gateway's time, where the kernel can tell it from the answer's.
#[test]
fn the_wait_for_the_answer_begins_with_the_kernels_send() {
    let mut course = play(Delays { answer: 50, ..Delays::default() }, true);
    let upstream = course.upstream.as_mut().expect("answered");
    for look in [&mut upstream.head, &mut upstream.to] {
        look.kernel.as_mut().expect("seen").last_out_ns += 20 * MS;
    }
    let spent = course.spent();
    assert_eq!((spent.upstream, spent.gateway), (30_000, 20_000));
    // Two calls may be the request and something else: the gateway's own clock decides.
    upstream_calls(&mut course);
    assert_eq!(course.spent().upstream, 50_000);
}

fn upstream_calls(course: &mut Course) {
    let head = &mut course.upstream.as_mut().expect("answered").head;
    head.kernel.as_mut().expect("seen").out_calls += 1;
}
