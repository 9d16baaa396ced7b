//! A wire that can be cut without anybody being told.

use std::{net::SocketAddr, sync::mpsc, thread, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream, tcp},
    sync::watch,
};

/// Forwards connections until it is dropped.
pub(crate) struct Wire {
    address: SocketAddr,
    cut: watch::Sender<bool>,
    thread: Option<thread::JoinHandle<()>>,
    end: Option<tokio::sync::oneshot::Sender<()>>,
}

impl Wire {
    pub(crate) fn to(server: SocketAddr) -> Self {
        let (cut, state) = watch::channel(false);
        let (end, ended) = tokio::sync::oneshot::channel();
        let (tell, address) = mpsc::channel();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
                tell.send(listener.local_addr().expect("an address"))
                    .expect("somebody waits");
                tokio::select! {
                    _ = ended => {}
                    () = accept(listener, server, state) => {}
                }
            });
        });
        Self {
            address: address
                .recv_timeout(Duration::from_secs(10))
                .expect("it listens"),
            cut,
            thread: Some(thread),
            end: Some(end),
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nothing passes any more, nothing is refused or closed.
    pub(crate) fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// What waits passes on.
    pub(crate) fn mend(&self) {
        self.cut.send_replace(false);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, cut: watch::Receiver<bool>) {
    while let Ok((client, _)) = listener.accept().await {
        let cut = cut.clone();
        tokio::spawn(async move {
            let Ok(server) = TcpStream::connect(server).await else {
                return;
            };
            let (from_client, to_client) = client.into_split();
            let (from_server, to_server) = server.into_split();
            tokio::join!(
                forward(from_client, to_server, cut.clone()),
                forward(from_server, to_client, cut),
            );
        });
    }
}

async fn forward(
    mut from: tcp::OwnedReadHalf,
    mut to: tcp::OwnedWriteHalf,
    mut cut: watch::Receiver<bool>,
) {
    let mut bytes = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut bytes).await {
        if cut.wait_for(|cut| !*cut).await.is_err() || to.write_all(&bytes[..length]).await.is_err()
        {
            return;
        }
    }
}
