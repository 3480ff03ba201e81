//! Single objects: put, get, head, copy, delete.

use std::{fs::File, io, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures::{Stream, stream};
use hyper::StatusCode;
use s3s::{
    S3Error, S3ErrorCode, S3Result,
    dto::{
        CopyObjectInput, CopyObjectOutput, CopyObjectResult, CopySource, Delete, DeleteObjectsOutput,
        DeletedObject, ETag, ETagCondition, GetObjectInput, GetObjectOutput, HeadObjectInput,
        HeadObjectOutput, PutObjectInput, PutObjectOutput, Range, StreamingBlob, Timestamp,
    },
    s3_error,
};
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use crate::{
    bucket::{Bucket, Condition, missing},
    file::{Described, Meta},
    protocol::{blocking, unsupported},
    staging::{Claims, receive},
};

const READ_CHUNK_LEN: u64 = 256 << 10;

/// PutObject; `trailers` of `claims` are the request's.
pub async fn put(
    bucket: Arc<Bucket>,
    mut input: PutObjectInput,
    claims: Claims,
) -> S3Result<PutObjectOutput> {
    unsupported(input.write_offset_bytes.is_some(), "appending")?;
    let condition = Condition { matches: input.if_match.take(), none_match: input.if_none_match.take() };
    // The body of a refused write need not travel.
    condition.check(&input.key, bucket.head(&input.key).as_deref())?;
    let mut staging = bucket.stage().await?;
    let sums = receive(&mut staging, input.body.take(), claims).await?;
    let described = described(input.content_type, input.metadata);
    let staged =
        staging.finish(&input.key, described).await.map_err(|error| broken("stored", &input.key, &error))?;
    let meta = blocking(move || bucket.commit(staged, &condition)).await?;
    Ok(PutObjectOutput {
        e_tag: Some(e_tag(&meta)),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        ..PutObjectOutput::default()
    })
}

/// GetObject.
pub async fn get(bucket: Arc<Bucket>, input: GetObjectInput) -> S3Result<(GetObjectOutput, StatusCode)> {
    unsupported(input.part_number.is_some(), "reading by part number")?;
    unsupported(input.version_id.is_some(), "versions")?;
    unsupported(input.if_unmodified_since.is_some(), "If-Unmodified-Since")?;
    let key = input.key.clone();
    let (file, meta) = blocking(move || bucket.open_object(&key)).await?;
    check_read(&meta, input.if_match, input.if_none_match)?;
    let (start, len, content_range) = span(&meta, input.range)?;
    let body = read(file, start, len).await.map_err(|error| broken("read", &meta.key, &error))?;
    let status = if content_range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
    let output = GetObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        body: Some(StreamingBlob::wrap(body)),
        content_length: Some(len as i64),
        content_range,
        e_tag: Some(e_tag(&meta)),
        last_modified: Some(Timestamp::from(meta.modified())),
        content_type: meta.described.content_type,
        metadata: Some(meta.described.user.into_iter().collect()),
        ..GetObjectOutput::default()
    };
    Ok((output, status))
}

/// HeadObject.
pub fn head(bucket: &Bucket, input: HeadObjectInput) -> S3Result<HeadObjectOutput> {
    unsupported(input.part_number.is_some(), "reading by part number")?;
    unsupported(input.version_id.is_some(), "versions")?;
    unsupported(input.if_unmodified_since.is_some(), "If-Unmodified-Since")?;
    unsupported(input.range.is_some(), "ranges in HEAD")?;
    let meta = bucket.head(&input.key).ok_or_else(|| missing(&input.key))?;
    check_read(&meta, input.if_match, input.if_none_match)?;
    Ok(HeadObjectOutput {
        accept_ranges: Some("bytes".to_owned()),
        content_length: Some(meta.len as i64),
        e_tag: Some(e_tag(&meta)),
        last_modified: Some(Timestamp::from(meta.modified())),
        content_type: meta.described.content_type.clone(),
        metadata: Some(meta.described.user.clone().into_iter().collect()),
        ..HeadObjectOutput::default()
    })
}

/// CopyObject, within and between buckets.
pub async fn copy(from: Arc<Bucket>, to: Arc<Bucket>, input: CopyObjectInput) -> S3Result<CopyObjectOutput> {
    let conditional = input.copy_source_if_match.is_some()
        || input.copy_source_if_none_match.is_some()
        || input.copy_source_if_modified_since.is_some()
        || input.copy_source_if_unmodified_since.is_some();
    unsupported(conditional, "conditional copies")?;
    let (_, source_key) = copy_source(&input.copy_source)?;
    let replace = input.metadata_directive.as_ref().is_some_and(|directive| directive.as_str() == "REPLACE");
    let key = source_key.to_owned();
    let (file, source) = blocking(move || from.open_object(&key)).await?;
    let failed = |error| broken("copied", &input.key, &error);
    let body = read(file, 0, source.len).await.map_err(failed)?;
    let mut staging = to.stage().await?;
    receive(&mut staging, Some(Box::pin(boxed_errors(body))), Claims::default()).await?;
    let described = if replace {
        described(input.content_type.clone(), input.metadata.clone())
    } else {
        source.described
    };
    let staged = staging.finish(&input.key, described).await.map_err(failed)?;
    if staged.meta.e_tag != source.e_tag {
        return Err(s3_error!(InternalError, "object {source_key} is corrupt on disk and was not copied"));
    }
    let meta = blocking(move || to.commit(staged, &Condition::default())).await?;
    let result = CopyObjectResult {
        e_tag: Some(e_tag(&meta)),
        last_modified: Some(Timestamp::from(meta.modified())),
        ..CopyObjectResult::default()
    };
    Ok(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() })
}

/// Bucket and key of a copy's source.
pub fn copy_source(source: &CopySource) -> S3Result<(&str, &str)> {
    match source {
        CopySource::Bucket { bucket, key, version_id: None } => Ok((bucket, key)),
        _ => Err(s3_error!(NotImplemented, "copies are from a bucket and a key, without version")),
    }
}

/// DeleteObjects. Blocks on the disk.
pub fn delete_many(bucket: &Bucket, delete: Delete) -> S3Result<DeleteObjectsOutput> {
    let (mut deleted, mut errors) = (Vec::new(), Vec::new());
    for object in delete.objects {
        unsupported(object.version_id.is_some(), "versions")?;
        let condition = Condition { matches: object.e_tag.map(ETagCondition::ETag), none_match: None };
        match bucket.delete(&object.key, &condition) {
            Ok(()) => deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() }),
            Err(error) => errors.push(s3s::dto::Error {
                code: Some(error.code().as_str().to_owned()),
                key: Some(object.key),
                message: error.message().map(str::to_owned),
                version_id: None,
            }),
        }
    }
    let deleted = if delete.quiet == Some(true) { Vec::new() } else { deleted };
    Ok(DeleteObjectsOutput { deleted: Some(deleted), errors: Some(errors), ..DeleteObjectsOutput::default() })
}

/// `len` bytes of `file` from `start` on, in chunks.
pub async fn read(
    file: File,
    start: u64,
    len: u64,
) -> io::Result<impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static> {
    let mut file = tokio::fs::File::from_std(file);
    file.set_max_buf_size(READ_CHUNK_LEN as usize);
    file.seek(io::SeekFrom::Start(start)).await?;
    Ok(stream::try_unfold((file, len), |(mut file, left)| async move {
        if left == 0 {
            return Ok(None);
        }
        let mut chunk = BytesMut::with_capacity(left.min(READ_CHUNK_LEN) as usize);
        let read = (&mut file).take(left.min(READ_CHUNK_LEN)).read_buf(&mut chunk).await? as u64;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Some((chunk.freeze(), (file, left - read))))
    }))
}

/// Strong tag of an object, as all of ours are.
pub fn e_tag(meta: &Meta) -> ETag {
    ETag::Strong(meta.e_tag.clone())
}

/// What is kept of a client's description.
pub fn described(content_type: Option<String>, user: Option<s3s::dto::Metadata>) -> Described {
    Described { content_type, user: user.unwrap_or_default().into_iter().collect() }
}

/// The disk failed an object.
pub fn broken(what: &str, key: &str, error: &io::Error) -> S3Error {
    s3_error!(InternalError, "object {key} could not be {what}: {error}")
}

/// As the receiver of a request's body expects them.
pub fn boxed_errors(
    body: impl Stream<Item = io::Result<Bytes>>,
) -> impl Stream<Item = Result<Bytes, s3s::StdError>> {
    futures::StreamExt::map(body, |chunk| chunk.map_err(Into::into))
}

fn check_read(
    meta: &Meta,
    matches: Option<ETagCondition>,
    none_match: Option<ETagCondition>,
) -> S3Result<()> {
    Condition { matches, none_match: None }.check(&meta.key, Some(meta))?;
    let unchanged = Condition { matches: None, none_match }.check(&meta.key, Some(meta));
    unchanged.map_err(|_| {
        let mut error = S3Error::new(S3ErrorCode::NotModified);
        error.set_status_code(StatusCode::NOT_MODIFIED);
        error
    })
}

/// First byte, number of bytes, and the `Content-Range` if only part was asked for.
fn span(meta: &Meta, range: Option<Range>) -> S3Result<(u64, u64, Option<String>)> {
    let Some(range) = range else { return Ok((0, meta.len, None)) };
    let (start, end) = match range {
        Range::Int { first, last } => {
            (first, last.map_or(meta.len, |last| last.saturating_add(1).min(meta.len)))
        }
        Range::Suffix { length } => (meta.len.saturating_sub(length), meta.len),
    };
    if start >= end {
        return Err(s3_error!(
            InvalidRange,
            "object {} has {} bytes, none of them in the range",
            meta.key,
            meta.len
        ));
    }
    Ok((start, end - start, Some(format!("bytes {start}-{}/{}", end - 1, meta.len))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_name_the_bytes_they_are() {
        let meta = |len| Meta {
            key: "k".to_owned(),
            len,
            e_tag: String::new(),
            modified_ms: 0,
            described: Described::default(),
        };
        let int = |first, last| Some(Range::Int { first, last });
        let suffix = |length| Some(Range::Suffix { length });
        for (len, range, expected) in [
            (10, int(0, Some(0)), Some((0, 1, "bytes 0-0/10"))),
            (10, int(3, None), Some((3, 7, "bytes 3-9/10"))),
            (10, int(3, Some(u64::MAX)), Some((3, 7, "bytes 3-9/10"))),
            (10, suffix(4), Some((6, 4, "bytes 6-9/10"))),
            (10, suffix(40), Some((0, 10, "bytes 0-9/10"))),
            (10, int(10, None), None),
            (10, suffix(0), None),
            (0, int(0, None), None),
        ] {
            let found = span(&meta(len), range).ok();
            let expected = expected.map(|(start, count, text)| (start, count, Some(text.to_owned())));
            assert_eq!(found, expected, "{len} {range:?}");
        }
    }
}
