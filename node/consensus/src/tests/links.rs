//! A TCP proxy that can be cut.

use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// One direction of calls between two nodes.
pub(super) struct Link {
    /// Where the caller connects.
    pub(super) address: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Link {
    /// A link to wherever `target` listens now, open.
    pub(super) async fn to(target: watch::Receiver<Option<SocketAddr>>) -> Link {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                tokio::spawn(carry(caller, target.clone(), is_cut.clone()));
            }
        });
        Link { address, cut }
    }

    /// A cut link drops its connections and takes no new ones.
    pub(super) fn set_cut(&self, is_cut: bool) {
        self.cut.send_replace(is_cut);
    }
}

async fn carry(
    mut caller: TcpStream,
    target: watch::Receiver<Option<SocketAddr>>,
    mut is_cut: watch::Receiver<bool>,
) {
    if *is_cut.borrow() {
        return;
    }
    let Some(target) = *target.borrow() else {
        return;
    };
    let Ok(mut callee) = TcpStream::connect(target).await else {
        return;
    };
    let _ = (caller.set_nodelay(true), callee.set_nodelay(true));
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut caller, &mut callee) => {}
        _ = is_cut.wait_for(|is_cut| *is_cut) => {}
    }
}
