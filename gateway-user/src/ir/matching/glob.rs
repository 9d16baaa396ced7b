//! Wildcards: `*` and `?`.

/// `*` is any run of bytes (also none), `?` exactly one. At most `pattern x text` steps: only the last star is retried,
/// which suffices because an earlier one has nothing to gain from taking more.
pub fn glob(pattern: &[u8], text: &[u8]) -> bool {
    glob_over(pattern, text.iter().copied())
}

/// The same over bytes that are made on the way, such as lower-case or decoded ones; cloning must be cheap.
pub(super) fn glob_over<I: Iterator<Item = u8> + Clone>(pattern: &[u8], mut text: I) -> bool {
    let mut at = 0;
    let mut retry: Option<(usize, I)> = None;
    loop {
        let mut behind = text.clone();
        let Some(byte) = behind.next() else { break };
        match pattern.get(at) {
            Some(b'*') => {
                at += 1;
                retry = Some((at, text.clone()));
            }
            Some(&wanted) if wanted == b'?' || wanted == byte => {
                at += 1;
                text = behind;
            }
            _ => match &mut retry {
                Some((after_star, taken)) => {
                    taken.next();
                    at = *after_star;
                    text = taken.clone();
                }
                None => return false,
            },
        }
    }
    pattern
        .get(at..)
        .is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}
