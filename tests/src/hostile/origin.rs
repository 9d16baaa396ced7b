//! The backend: `/1k` and `/1m` answer with that many bytes, a POST is read and never answered.

use std::{
    net::{Ipv4Addr, SocketAddr},
    rc::Rc,
    thread,
};

use anyhow::{Context, Result};
use socket2::{Domain, Socket, Type};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime,
    task::{LocalSet, spawn_local},
};

use super::part;

/// Bytes of the answer a normal client asks for.
pub const SMALL_BYTES: usize = 1024;
const LARGE_BYTES: usize = 1024 * 1024;
/// Kept small: thousands of answers wait here.
const SEND_BUFFER_BYTES: usize = 32 * 1024;
const BACKLOG: i32 = 4096;

/// Serves until standard input ends.
pub fn run() -> Result<()> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.set_send_buffer_size(SEND_BUFFER_BYTES)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
    socket.listen(BACKLOG)?;
    let listener: std::net::TcpListener = socket.into();
    let address = listener.local_addr()?;
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop of the backend")?;
    thread::spawn(move || LocalSet::new().block_on(&runtime, accept(listener)));
    part::serve(address, String::new)
}

async fn accept(listener: std::net::TcpListener) -> Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let answer = |bytes: usize| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n");
        [head.into_bytes(), vec![b'x'; bytes]].concat()
    };
    let answers = Rc::new((answer(SMALL_BYTES), answer(LARGE_BYTES)));
    loop {
        match listener.accept().await {
            // A connection that breaks is none of the backend's business.
            Ok((stream, _)) => drop(spawn_local(serve(stream, Rc::clone(&answers)))),
            Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
        }
    }
}

async fn serve(mut stream: TcpStream, answers: Rc<(Vec<u8>, Vec<u8>)>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut head = Vec::with_capacity(1024);
    loop {
        head.clear();
        while !head.windows(4).any(|it| it == b"\r\n\r\n") {
            if stream.read_buf(&mut head).await? == 0 {
                return Ok(());
            }
        }
        if head.starts_with(b"POST ") {
            loop {
                head.clear();
                if stream.read_buf(&mut head).await? == 0 {
                    return Ok(());
                }
            }
        }
        let large = head.starts_with(b"GET /1m ");
        let answer = if large { &answers.1 } else { &answers.0 };
        stream.write_all(answer).await?;
    }
}
