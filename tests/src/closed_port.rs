//! A port that refuses connections until it is opened.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpSocket, TcpStream};
use tokio::spawn;

/// A port that is bound, so that no other process can take it, but not listened on.
#[derive(Debug)]
pub struct ClosedPort {
    socket: TcpSocket,
    target: String,
}

impl ClosedPort {
    /// Binds a port of the loopback interface, in front of `target` (host and port).
    pub(crate) fn reserve(target: &str) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((Ipv4Addr::LOCALHOST, 0).into())?;
        Ok(Self { socket, target: target.to_owned() })
    }

    pub(crate) fn address(&self) -> Result<SocketAddr> {
        Ok(self.socket.local_addr()?)
    }

    /// Starts to accept connections and forwards them to the target until the runtime ends.
    ///
    /// # Errors
    /// When the operating system does not let the socket listen.
    pub fn open(self) -> Result<()> {
        let Self { socket, target } = self;
        let listener = socket.listen(128)?;
        spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let target = target.clone();
                spawn(async move {
                    // An error means that one side closed early; the other side notices it.
                    if let Ok(mut server) = TcpStream::connect(target).await {
                        drop(copy_bidirectional(&mut client, &mut server).await);
                    }
                });
            }
        });
        Ok(())
    }
}
