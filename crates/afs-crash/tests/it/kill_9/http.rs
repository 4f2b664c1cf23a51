//! HTTP/1.1 as little as it takes: one connection, kept open, one request after the other, bodies with a length.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

/// Longer than any stop of the server in these tests.
const PATIENCE: Duration = Duration::from_secs(40);

pub(super) struct Http {
    port: u16,
    connection: Option<BufReader<TcpStream>>,
}

impl Http {
    pub(super) fn new(port: u16) -> Self {
        Self { port, connection: None }
    }

    /// Sends a request and returns status and body. After an error nobody knows whether the server saw it.
    pub(super) fn send(
        &mut self,
        verb: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(u16, Vec<u8>)> {
        let answer = self.exchange(verb, target, headers, body);
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    /// The server was restarted.
    pub(super) fn forget(&mut self) {
        self.connection = None;
    }

    fn exchange(
        &mut self,
        verb: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<(u16, Vec<u8>)> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            free @ None => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port))?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                free.insert(BufReader::new(stream))
            }
        };
        let mut head = format!(
            "{verb} {target} HTTP/1.1\r\nhost: 127.0.0.1:{}\r\ncontent-length: {}\r\n",
            self.port,
            body.len()
        );
        headers.iter().for_each(|(name, value)| head += &format!("{name}: {value}\r\n"));
        head += "\r\n";
        connection.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let status = line(connection)?;
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = status.ok_or_else(|| Error::other("no status"))?;
        let mut length = 0;
        loop {
            let header = line(connection)?.to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            assert!(!header.starts_with("transfer-encoding"), "answers of this size come with a length");
            if let Some(value) = header.strip_prefix("content-length:") {
                length = value.trim().parse().map_err(Error::other)?;
            }
        }
        let mut body = vec![0; length];
        connection.read_exact(&mut body)?;
        Ok((status, body))
    }
}

fn line(connection: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    match connection.read_line(&mut line)? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}
