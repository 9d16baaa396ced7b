use proptest::prelude::*;

use super::*;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SPAN: &str = "00f067aa0ba902b7";

fn read(value: &str) -> Option<Parent> {
    Parent::parse(value.as_bytes())
}

/// The examples of sections 3.2.3 and 3.2.2, and the cases of the W3C's test suite.
#[test]
fn traceparent_is_read_as_the_recommendation_says() {
    let valid = |flags: &str, sampled| {
        let parent = read(&format!("00-{TRACE}-{SPAN}-{flags}")).unwrap();
        assert_eq!(parent.trace.to_string(), TRACE);
        assert_eq!(parent.span.to_string(), SPAN);
        assert_eq!(parent.sampled, sampled, "{flags}");
    };
    valid("01", true);
    valid("00", false);
    valid("02", false);
    valid("ff", true);
    let higher = [
        format!("01-{TRACE}-{SPAN}-01"),
        format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"),
        format!("cc-{TRACE}-{SPAN}-01-"),
        format!("fe-{TRACE}-{SPAN}-01"),
    ];
    for value in higher {
        assert_eq!(
            read(&value),
            read(&format!("00-{TRACE}-{SPAN}-01")),
            "{value}"
        );
    }
}

#[test]
fn what_is_not_exactly_a_traceparent_is_none() {
    let zeroes = "0".repeat(32);
    for value in [
        String::new(),
        "00".into(),
        format!("00-{TRACE}-{SPAN}"),
        format!("00-{TRACE}-{SPAN}-0"),
        format!("00-{TRACE}-{SPAN}-01-"),
        format!("00-{TRACE}-{SPAN}-01-what-the-future-will-be-like"),
        format!("00-{TRACE}-{SPAN}-010"),
        format!("cc-{TRACE}-{SPAN}-01.what-the-future-will-not-be-like"),
        format!("cc-{TRACE}-{SPAN}-010"),
        format!("ff-{TRACE}-{SPAN}-01"),
        format!("0-{TRACE}-{SPAN}-01"),
        format!(".0-{TRACE}-{SPAN}-01"),
        format!("00-{zeroes}-{SPAN}-01"),
        format!("00-{TRACE}-0000000000000000-01"),
        format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
        format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
        format!("00-{TRACE}-{SPAN}-.0"),
        format!("00-.{}-{SPAN}-01", &TRACE[1..]),
        format!("00-{}-{SPAN}-01", &TRACE[1..]),
        format!("00-{TRACE}0-{SPAN}-01"),
        format!("00-{TRACE}-{}-01", &SPAN[1..]),
        format!("00_{TRACE}_{SPAN}_01"),
        format!(" 00-{TRACE}-{SPAN}-01"),
        format!("00-{TRACE}-{SPAN}-01 "),
        format!("+0-{TRACE}-{SPAN}-01"),
    ] {
        assert_eq!(read(&value), None, "{value}");
    }
}

#[test]
fn two_parents_are_none() {
    let value = format!("00-{TRACE}-{SPAN}-01");
    let value = value.as_bytes();
    assert!(Parent::of([value]).is_some());
    assert_eq!(Parent::of([value, value]), None);
    assert_eq!(Parent::of([]), None);
}

#[test]
fn the_backend_is_told_the_trace_of_the_client_and_the_span_of_the_proxy() {
    let mut ids = Ids::new([1, 2, 3, 4]);
    let parent = read(&format!("cc-{TRACE}-{SPAN}-07-more"));
    let span = Span::new(parent, Sample::share(0.0), &mut ids);
    let told = String::from_utf8(span.traceparent().to_vec()).unwrap();
    assert_eq!(told, format!("00-{TRACE}-{}-01", span.id));
    assert_ne!(span.id.to_string(), SPAN);
    assert_eq!(span.parent.unwrap().to_string(), SPAN);
    assert_eq!(&span.trace.text()[..], TRACE.as_bytes());
    assert_eq!(span.id.text(), span.id.to_string().as_bytes());
}

#[test]
fn the_caller_decides_on_sampling_and_without_one_the_proxy_does() {
    let mut ids = Ids::new([1, 2, 3, 4]);
    let (all, none) = (Sample::share(1.0), Sample::share(0.0));
    let caller = |flags: &str| read(&format!("00-{TRACE}-{SPAN}-{flags}"));
    assert!(!Span::new(caller("00"), all, &mut ids).sampled);
    assert!(Span::new(caller("01"), none, &mut ids).sampled);
    for _ in 0..1000 {
        assert!(Span::new(None, all, &mut ids).sampled);
        assert!(!Span::new(None, none, &mut ids).sampled);
    }
    let tenth = (0..10_000).filter(|_| Span::new(None, Sample::share(0.1), &mut ids).sampled);
    assert!((900..1100).contains(&tenth.count()));
}

proptest! {
    #[test]
    fn what_is_told_is_read_again(seed: [u64; 4], sample: bool) {
        let share = Sample::share(f64::from(u8::from(sample)));
        let span = Span::new(None, share, &mut Ids::new(seed));
        let read = Parent::parse(&span.traceparent()).unwrap();
        prop_assert_eq!((read.trace, read.span, read.sampled), (span.trace, span.id, sample));
    }

    #[test]
    fn noise_is_read_without_a_panic(value: Vec<u8>, at in 0_usize..55, byte: u8) {
        Parent::parse(&value);
        let mut near = format!("00-{TRACE}-{SPAN}-01").into_bytes();
        near[at] = byte;
        if let Some(parent) = Parent::parse(&near) {
            prop_assert!(parent.trace.0 != 0 && parent.span.0 != 0);
        }
    }
}
