//! An echo server on Tokio: one thread, a task for each connection.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

async fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut bytes = vec![0; 64 * 1024];
    loop {
        match stream.read(&mut bytes).await? {
            0 => return Ok(()),
            n => stream.write_all(&bytes[..n]).await?,
        }
    }
}

fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, async {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(4096)?;
        println!("tokio: listening on {}", listener.local_addr()?);
        loop {
            let (stream, _) = listener.accept().await?;
            // A client that breaks its connection is not an error of the server.
            tokio::task::spawn_local(async { drop(serve(stream).await) });
        }
    })
}
