//! The one message that is read of gRPC: `HealthCheckResponse { ServingStatus status = 1; }`. Pure.
//!
//! Source: gRPC over HTTP/2, "Length-Prefixed-Message"; Protocol Buffers encoding; grpc/health/v1/health.proto.

/// `SERVING`; the others are `UNKNOWN` (0), `NOT_SERVING` (2) and `SERVICE_UNKNOWN` (3).
const SERVING: u64 = 1;

/// Whether a body, prefix and all, says that the server serves. `None`: it is not exactly one such message.
pub(super) fn serving(body: &[u8]) -> Option<bool> {
    // No compression was offered, so the flag is 0.
    let (&[0, a, b, c, d], message) = body.split_first_chunk::<5>()? else {
        return None;
    };
    let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).ok()?;
    if message.len() != length {
        return None;
    }
    Some(status(message)? == SERVING)
}

/// Field 1. Fields that are not known are skipped, the last one counts, and a missing one is 0.
fn status(mut rest: &[u8]) -> Option<u64> {
    let mut status = 0;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match (key >> 3, key & 7) {
            (0, _) => return None,
            (1, 0) => status = varint(&mut rest)?,
            (_, 0) => {
                varint(&mut rest)?;
            }
            (_, 1) => rest = rest.get(8..)?,
            (_, 2) => {
                let length = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(length..)?;
            }
            (_, 5) => rest = rest.get(4..)?,
            // Groups are of another age.
            _ => return None,
        }
    }
    Some(status)
}

/// At most ten bytes, seven bits each, the lowest first; what does not fit into 64 bits falls off.
fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (&byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        let length = u32::try_from(message.len()).expect("short");
        [&[0], &length.to_be_bytes()[..], message].concat()
    }

    #[test]
    fn only_status_1_serves_and_a_missing_status_is_unknown() {
        for (message, serves) in [
            (&[8, 1][..], Some(true)),
            (&[8, 0], Some(false)),
            (&[8, 2], Some(false)),
            (&[8, 3], Some(false)),
            (&[], Some(false)),
            // 1, in two bytes; 129.
            (&[8, 0x81, 0], Some(true)),
            (&[8, 0x81, 1], Some(false)),
            // The last one counts; fields 2 to 5 of every type are skipped.
            (&[8, 2, 8, 1], Some(true)),
            (
                &[
                    0x12, 2, 8, 2, 0x18, 9, 0x25, 1, 2, 3, 4, 8, 1, 0x29, 1, 2, 3, 4, 5, 6, 7, 8,
                ],
                Some(true),
            ),
            // Cut, longer than the message, a group, field 0, eleven bytes.
            (&[8], None),
            (&[0x12, 9, 8, 1], None),
            (&[0x0b, 8, 1, 0x0c], None),
            (&[0, 1], None),
            (
                &[
                    8, 0x81, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0,
                ],
                None,
            ),
        ] {
            assert_eq!(serving(&framed(message)), serves, "{message:?}");
        }
        assert_eq!(serving(&[]), None);
        assert_eq!(serving(&[0, 0, 0, 0]), None);
        assert_eq!(serving(&[1, 0, 0, 0, 2, 8, 1]), None);
        assert_eq!(serving(&[0, 0, 0, 0, 3, 8, 1]), None);
        assert_eq!(serving(&[0, 0, 0, 0, 2, 8, 1, 0]), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_judged_and_what_is_cut_never_serves(
            noise in prop::collection::vec(any::<u8>(), 0..40),
            cut in 0..7_usize,
        ) {
            serving(&noise);
            serving(&framed(&noise));
            prop_assert_eq!(serving(&framed(&[8, 1])[..cut]), None);
        }
    }
}
