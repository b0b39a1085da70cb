//! Connections to registries: made by the process outside, since the mesh's network has no way to them.

use lateen_image::{Connect, Connecting, Connection};
use tokio::net::TcpStream;

use crate::Outside;

/// Makes connections outside.
#[derive(Debug)]
pub(super) struct FromOutside(pub(super) Outside);

impl Connect for FromOutside {
    fn connect<'a>(&'a self, host: &'a str, port: u16) -> Connecting<'a> {
        Box::pin(async move {
            let stream = self.0.connect_name(host, port).await?;
            let stream = TcpStream::from_std(stream)?;
            Ok(Box::new(stream) as Box<dyn Connection>)
        })
    }
}
