//! WebSocket messages of one frame (RFC 6455 section 5.2).

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

use super::http1::Conn;

/// Opcode of a text message.
pub(super) const TEXT: u8 = 1;
/// Opcode of the frame that ends a connection.
pub(super) const CLOSE: u8 = 8;
/// Status of a server that goes away (section 7.4.1), as the body of a closing frame.
pub(super) const GOING_AWAY: [u8; 2] = 1001_u16.to_be_bytes();
/// Key and answer of the example in section 1.3: all clients of a run send the same key, which is not random, as it should
/// be, but leaves out SHA-1.
pub(super) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
pub(super) const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
/// What masks the frames of clients; section 5.3 wants another one for each.
const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
/// No message is longer.
const MOST_BYTES: usize = 1 << 20;

/// A frame, masked as a client's must be.
pub(super) fn frame(opcode: u8, payload: &[u8], masked: bool) -> Vec<u8> {
    let mut out = vec![0x80 | opcode];
    let bit = if masked { 0x80 } else { 0 };
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ ..=125), _) => out.push(bit | short),
        (_, Ok(length)) => {
            out.push(bit | 126);
            out.extend(length.to_be_bytes());
        }
        _ => {
            out.push(bit | 127);
            out.extend((payload.len() as u64).to_be_bytes());
        }
    }
    if masked {
        out.extend(MASK);
        out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(a, b)| a ^ b));
    } else {
        out.extend_from_slice(payload);
    }
    out
}

/// Reads a frame: opcode and payload.
pub(super) async fn read<S>(conn: &mut Conn<S>) -> io::Result<(u8, Vec<u8>)>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let head = conn.take(2).await?;
    let length = match head[1] & 0x7f {
        126 => {
            let bytes = conn.take(2).await?;
            usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
        }
        127 => return Err(io::ErrorKind::InvalidData.into()),
        short => usize::from(short),
    };
    if length > MOST_BYTES {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mask = match head[1] & 0x80 {
        0 => vec![0; 4],
        _ => conn.take(4).await?,
    };
    let mut payload = conn.take(length).await?;
    for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
    Ok((head[0] & 0x0f, payload))
}
