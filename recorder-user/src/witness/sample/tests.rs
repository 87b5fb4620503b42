use super::*;

fn look(at_ns: u64, in_bytes: u64, out_bytes: u64, kernel: KernelSample) -> Sample {
    Sample {
        at_ns,
        gateway_in_bytes: in_bytes,
        gateway_out_bytes: out_bytes,
        kernel: Some(KernelSample { in_bytes, out_bytes, ..kernel }),
    }
}

fn wall(ns: u64) -> Option<Timestamp> {
    (ns > 0).then(|| Timestamp::from_micros(i64::try_from(ns / 1_000).expect("small")))
}

fn at(us: i64) -> Option<Timestamp> {
    Some(Timestamp::from_micros(us))
}

/// A request that arrived at 1 ms and was read at 3 ms, whose response began at 5 ms.
fn looks() -> Looks {
    let before = KernelSample { last_out_ns: 900_000, out_run_ns: 800_000, ..Default::default() };
    let head = KernelSample { last_in_ns: 3_000_000, queue_ns: 2_000_000, ..before };
    let to = KernelSample {
        last_in_ns: 4_000_000,
        last_out_ns: 6_000_000,
        out_run_ns: 5_000_000,
        queue_ns: 2_500_000,
        retransmits: 3,
        rtt_us: 70,
        ..head
    };
    Looks {
        from: look(950_000, 100, 1_000, before),
        head: look(3_100_000, 300, 1_000, head),
        to: look(7_000_000, 340, 5_000, to),
        interleaved: false,
    }
}

#[test]
fn a_span_is_what_passed_between_the_looks() {
    let span = looks().span(wall);
    assert_eq!(
        span,
        ExchangeSpan {
            in_from: 100,
            in_to: 340,
            out_from: 1_000,
            out_to: 5_000,
            first_in: at(1_000),
            last_in: at(4_000),
            first_out: at(5_000),
            last_out: at(6_000),
            interleaved: false,
            inexact: false,
            queue_us: Some(2_500),
            retransmits: 3,
            rtt_us: Some(70),
        }
    );
}

#[test]
fn nothing_sent_has_no_time_and_a_run_of_another_is_not_ours() {
    let mut looks = looks();
    looks.to = Sample { gateway_out_bytes: 1_000, ..looks.to };
    let kernel = looks.to.kernel.as_mut().expect("seen");
    kernel.out_bytes = 1_000;
    let span = looks.span(wall);
    assert_eq!((span.first_out, span.last_out), (None, None));

    let kernel = looks.to.kernel.as_mut().expect("seen");
    (kernel.out_bytes, kernel.out_run_ns) = (1_001, 800_000);
    let span = looks.span(wall);
    assert_eq!((span.first_out, span.last_out), (None, at(6_000)), "it began before the exchange");
}

#[test]
fn counts_that_differ_at_an_end_are_told() {
    let check = |change: fn(&mut Looks), inexact| {
        let mut looks = looks();
        change(&mut looks);
        assert_eq!(looks.span(wall).inexact, inexact);
    };
    check(|_| (), false);
    check(|looks| looks.from.gateway_in_bytes -= 1, true);
    check(|looks| looks.to.gateway_out_bytes -= 1, true);
    check(|looks| looks.head.gateway_in_bytes -= 1, false);
}

#[test]
fn without_the_kernels_times_offsets_are_the_gateways() {
    let mut looks = looks();
    looks.to.kernel = None;
    looks.from.kernel = None;
    looks.interleaved = true;
    let span = looks.span(wall);
    assert_eq!((span.in_from, span.in_to, span.out_from, span.out_to), (100, 340, 1_000, 5_000));
    assert_eq!(
        (span.queue_us, span.rtt_us, span.first_in, span.last_out),
        (None, None, None, None)
    );
    assert!(span.interleaved && !span.inexact);
}

#[test]
fn a_look_tells_when_its_bytes_were_read() {
    let looks = looks();
    assert_eq!(looks.head.read_ns(0), 3_000_000);
    assert_eq!(looks.head.read_ns(3_050_000), 3_050_000, "not before what it followed");
    assert_eq!(looks.head.read_ns(9_000_000), 9_000_000);
    assert_eq!(Sample { kernel: None, ..looks.head }.read_ns(0), 3_100_000);
}
