//! The bytes of a WriteFile call.
//!
//! Guarantees: they end where the caller says that they end, with the message `end`, and a stream that just stops is an error. Over gRPC the end
//! of a stream proves nothing: a caller whose source of bytes has failed, and in some implementations one that cancels, ends it like
//! any other. Each piece is of a size of which a few may wait.

use afs_proto::v1::WriteFileRequest;
use afs_proto::v1::write_file_request::Part;
use afs_types::{Error, Reason, Result, limits};
use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt as _, stream};
use tonic::Status;

/// What comes after the header.
pub(super) fn bytes<S>(parts: S) -> impl Stream<Item = Result<Bytes>> + Send
where
    S: Stream<Item = Result<WriteFileRequest, Status>> + Send + Unpin,
{
    let parts = parts.map_err(|status| afs_proto::from_status(&afs_proto::typed(status)));
    stream::try_unfold(parts, |mut parts| async move {
        let Some(message) = parts.next().await.transpose()? else { return Err(unfinished()) };
        match message.part {
            Some(Part::Data(data)) => piece(data).map(|data| Some((data, parts))),
            // Looked for, since what is said after the end would be left out without a word.
            Some(Part::End(_)) => match parts.next().await.transpose()? {
                None => Ok(None),
                Some(_) => Err(Error::invalid("end", "it as the last message")),
            },
            Some(Part::Header(_)) | None => {
                Err(Error::invalid("data", "bytes in every message after the first, and then `end`"))
            }
        }
    })
}

fn unfinished() -> Error {
    Error::invalid("end", "a last message with `end`, which says that all bytes were sent")
        .next("send it after the bytes; nothing was changed")
}

fn piece(data: Bytes) -> Result<Bytes> {
    let most = limits::MAX_WRITE_PIECE_BYTES;
    if data.len() <= most {
        return Ok(data);
    }
    Err(Error::new(
        Reason::MessageTooLarge,
        format!("data: {} bytes in one message, the limit is {most}", data.len()),
    )
    .with("field", "data")
    .with("limit", most.to_string())
    .next("send the file in smaller pieces"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use afs_proto::v1::{WriteFileEnd, WriteFileHeader};

    async fn read(parts: Vec<Result<Option<Part>, Status>>) -> Result<Vec<u8>> {
        let parts = parts.into_iter().map(|part| part.map(|part| WriteFileRequest { part }));
        let pieces: Vec<Bytes> = bytes(stream::iter(parts)).try_collect().await?;
        Ok(pieces.concat())
    }

    #[tokio::test]
    async fn only_the_word_of_the_caller_ends_an_upload() {
        let data = || Ok(Some(Part::Data(Bytes::from_static(b"ab"))));
        let end = || Ok(Some(Part::End(WriteFileEnd {})));
        let header = Ok(Some(Part::Header(WriteFileHeader::default())));
        let reset = || Err(Status::cancelled("gone"));
        assert_eq!(read(vec![data(), data(), end()]).await.unwrap(), b"abab");
        assert_eq!(read(vec![end()]).await.unwrap(), b"");
        for (parts, field) in [
            (vec![], "end"),
            (vec![data()], "end"),
            (vec![end(), data()], "end"),
            (vec![end(), end()], "end"),
            (vec![data(), Ok(None), end()], "data"),
            (vec![header, end()], "data"),
        ] {
            let shown = format!("{parts:?}");
            let error = read(parts).await.unwrap_err();
            assert_eq!(error.reason, Reason::InvalidArgument, "{shown}: {error:?}");
            assert_eq!(error.metadata(), [("field", field.to_owned())], "{shown}");
        }
        assert!(read(vec![data(), reset()]).await.is_err());
        assert!(read(vec![data(), end(), reset()]).await.is_err());
    }
}
