//! Bytes of files, both ways.

use crate::calls::empty_answer;
use crate::client::Client;
use crate::retry::request_id;
use afs_proto::v1 as api;
use afs_types::{Error, Result};
use api::file_system_service_client::FileSystemServiceClient;
use api::read_file_response::Part;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// Large enough to fill the wire, small enough that a few in flight are little memory.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS_IN_FLIGHT: usize = 4;

impl Client {
    /// Reads a file into `out` and returns its entry. `progress` hears of the bytes as they come.
    pub async fn download(
        &self,
        request: api::ReadFileRequest,
        out: &mut (impl AsyncWrite + Unpin),
        progress: &mut dyn FnMut(u64),
    ) -> Result<api::Entry> {
        let mut parts = self.read_file(request).await?;
        let entry = match parts.next().await?.and_then(|first| first.part) {
            Some(Part::Entry(entry)) => entry,
            Some(Part::Data(_)) | None => return Err(empty_answer("read_file")),
        };
        let mut done = 0;
        while let Some(message) = parts.next().await? {
            if let Some(Part::Data(bytes)) = message.part {
                out.write_all(&bytes).await.map_err(|e| Error::io("write the bytes received", e))?;
                done += bytes.len() as u64;
                progress(done);
            }
        }
        out.flush().await.map_err(|e| Error::io("write the bytes received", e))?;
        Ok(entry)
    }

    /// Writes a file from `input`. When reading `input` fails, the call is cancelled and the file stays as it was.
    pub async fn upload(
        &self,
        mut header: api::WriteFileHeader,
        input: &mut (impl AsyncRead + Unpin),
        progress: &mut dyn FnMut(u64),
    ) -> Result<api::MutationResponse> {
        if header.request_id.is_empty() {
            header.request_id = request_id();
        }
        let (sender, receiver) = mpsc::channel(CHUNKS_IN_FLIGHT);
        let mut stub = self.stub(FileSystemServiceClient::new);
        let call = async move { stub.write_file(ReceiverStream::new(receiver)).await };
        tokio::pin!(call);
        let feed = self.feed(header, input, sender, progress);
        // `feed` says the end, without which the server changes nothing, only after all of the input was read. An error of the input drops
        // the call, and a process that is killed says no more.
        let answer = tokio::select! {
            biased;
            answer = &mut call => answer, // refused early, e.g. by a precondition
            fed = feed => {
                drop(fed?);
                match tokio::time::timeout(self.timeout(), &mut call).await {
                    Ok(answer) => answer,
                    Err(_) => return Err(self.timed_out("write_file")),
                }
            }
        };
        answer.map(tonic::Response::into_inner).map_err(|status| self.error(&status))
    }

    /// Sends everything and the end, and gives the sender back, still open.
    async fn feed(
        &self,
        header: api::WriteFileHeader,
        input: &mut (impl AsyncRead + Unpin),
        sender: mpsc::Sender<api::WriteFileRequest>,
        progress: &mut dyn FnMut(u64),
    ) -> Result<mpsc::Sender<api::WriteFileRequest>> {
        self.push(&sender, api::write_file_request::Part::Header(header)).await?;
        let mut done = 0;
        loop {
            let chunk = read_chunk(input).await?;
            if chunk.is_empty() {
                self.push(&sender, api::write_file_request::Part::End(api::WriteFileEnd {})).await?;
                return Ok(sender);
            }
            done += chunk.len() as u64;
            self.push(&sender, api::write_file_request::Part::Data(chunk)).await?;
            progress(done);
        }
    }

    async fn push(
        &self,
        sender: &mpsc::Sender<api::WriteFileRequest>,
        part: api::write_file_request::Part,
    ) -> Result<()> {
        let message = api::WriteFileRequest { part: Some(part) };
        match tokio::time::timeout(self.timeout(), sender.send(message)).await {
            Ok(Ok(())) => Ok(()),
            // The call has ended; its own answer, which `upload` prefers, says why.
            Ok(Err(_)) => std::future::pending().await,
            Err(_) => Err(self.timed_out("write_file")),
        }
    }
}

async fn read_chunk(input: &mut (impl AsyncRead + Unpin)) -> Result<Bytes> {
    let mut chunk = BytesMut::with_capacity(CHUNK_BYTES);
    while chunk.len() < CHUNK_BYTES {
        let read = input.read_buf(&mut chunk).await.map_err(|e| Error::io("read the input", e))?;
        if read == 0 {
            break;
        }
    }
    Ok(chunk.freeze())
}
