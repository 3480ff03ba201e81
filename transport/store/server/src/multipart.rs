//! Multipart uploads: create, upload part, list parts, list uploads, complete, abort.
//!
//! In the bucket's `uploads` folder `<id>.upload` is an empty object that tells where the upload will go, and
//! `<id>.<part number>` are its parts, objects as well. What has no `.upload` is left over and goes at the next start.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use s3s::{
    S3Result,
    dto::{
        AbortMultipartUploadInput, CompleteMultipartUploadInput, CompleteMultipartUploadOutput,
        CreateMultipartUploadInput, CreateMultipartUploadOutput, ListMultipartUploadsInput,
        ListMultipartUploadsOutput, ListPartsInput, ListPartsOutput, MultipartUpload, Part, Timestamp,
        UploadPartInput, UploadPartOutput,
    },
    s3_error,
};

use crate::{
    bucket::{Bucket, Condition},
    file::{self, Meta, sync_dir},
    objects::{boxed_errors, broken, described, e_tag, read},
    protocol::{blocking, unsupported},
    random_hex,
    staging::{Claims, receive},
};

const RECORD: &str = "upload";
const MAX_PART_NUMBER: i32 = 10_000;
/// All parts but the last are at least this long, in bytes.
const MIN_PART_LEN: u64 = 5 << 20;

/// CreateMultipartUpload.
pub async fn create(
    bucket: Arc<Bucket>,
    input: CreateMultipartUploadInput,
) -> S3Result<CreateMultipartUploadOutput> {
    let upload_id = random_hex::<16>().map_err(|error| s3_error!(InternalError, "{error}"))?;
    let failed = |error: io::Error| broken("begun", &input.key, &error);
    let staging = bucket.stage().await?;
    let record =
        staging.finish(&input.key, described(input.content_type, input.metadata)).await.map_err(failed)?;
    let place = bucket.uploads().join(format!("{upload_id}.{RECORD}"));
    blocking(move || Ok(record.place(&place))).await?.map_err(failed)?;
    Ok(CreateMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(upload_id),
        ..CreateMultipartUploadOutput::default()
    })
}

/// UploadPart; a part sent again replaces the first.
pub async fn upload_part(
    bucket: Arc<Bucket>,
    mut input: UploadPartInput,
    claims: Claims,
) -> S3Result<UploadPartOutput> {
    if !(1..=MAX_PART_NUMBER).contains(&input.part_number) {
        return Err(s3_error!(
            InvalidArgument,
            "part numbers are 1 to {MAX_PART_NUMBER}, not {}",
            input.part_number
        ));
    }
    let upload = Upload::find(&bucket, &input.key, &input.upload_id)?;
    let mut staging = bucket.stage().await?;
    let sums = receive(&mut staging, input.body.take(), claims).await?;
    let failed = |error: io::Error| broken("stored in part", &input.key, &error);
    let staged = staging.finish(&input.key, upload.record.described.clone()).await.map_err(failed)?;
    let place = upload.part(input.part_number);
    let meta = blocking(move || Ok(staged.place(&place))).await?.map_err(failed)?;
    Ok(UploadPartOutput {
        e_tag: Some(e_tag(&meta)),
        checksum_crc32: sums.checksum_crc32,
        checksum_crc32c: sums.checksum_crc32c,
        checksum_crc64nvme: sums.checksum_crc64nvme,
        checksum_sha1: sums.checksum_sha1,
        checksum_sha256: sums.checksum_sha256,
        ..UploadPartOutput::default()
    })
}

/// CompleteMultipartUpload: joins the named parts into one file and commits that.
pub async fn complete(
    bucket: Arc<Bucket>,
    input: CompleteMultipartUploadInput,
) -> S3Result<CompleteMultipartUploadOutput> {
    let condition = Condition { matches: input.if_match, none_match: input.if_none_match };
    let upload = Upload::find(&bucket, &input.key, &input.upload_id)?;
    condition.check(&input.key, bucket.head(&input.key).as_deref())?;
    let wanted = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default();
    if wanted.is_empty() {
        return Err(s3_error!(InvalidRequest, "an upload is completed from at least one part"));
    }
    let failed = |error: io::Error| broken("joined", &input.key, &error);
    let mut staging = bucket.stage().await?;
    let mut last_number = 0;
    let mut last_len = MIN_PART_LEN;
    for part in wanted {
        let number = part.part_number.unwrap_or_default();
        if number <= last_number {
            return Err(s3_error!(InvalidPartOrder, "part {number} comes after part {last_number}"));
        }
        if last_len < MIN_PART_LEN {
            return Err(s3_error!(
                EntityTooSmall,
                "part {last_number} has {last_len} bytes and is not the last"
            ));
        }
        let place = upload.part(number);
        let opened = blocking(move || Ok(file::open(&place))).await?;
        let (file, meta) = opened.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => s3_error!(InvalidPart, "part {number} was not uploaded"),
            _ => failed(error),
        })?;
        if part.e_tag.is_some_and(|claimed| claimed != e_tag(&meta)) {
            return Err(s3_error!(InvalidPart, "part {number} has the entity tag {}", meta.e_tag));
        }
        let body = read(file, 0, meta.len).await.map_err(failed)?;
        receive(&mut staging, Some(Box::pin(boxed_errors(body))), Claims::default()).await?;
        (last_number, last_len) = (number, meta.len);
    }
    let staged = staging.finish(&input.key, upload.record.described.clone()).await.map_err(failed)?;
    if let Some(claimed) = input.mpu_object_size
        && u64::try_from(claimed) != Ok(staged.meta.len)
    {
        return Err(s3_error!(InvalidRequest, "the parts have {} bytes, not {claimed}", staged.meta.len));
    }
    let meta = blocking(move || {
        let meta = bucket.commit(staged, &condition)?;
        // The object stands; parts that cannot be removed now cost space only.
        if let Err(error) = upload.remove() {
            tracing::warn!(key = meta.key, %error, "parts of a completed upload remain");
        }
        Ok(meta)
    })
    .await?;
    Ok(CompleteMultipartUploadOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        e_tag: Some(e_tag(&meta)),
        ..CompleteMultipartUploadOutput::default()
    })
}

/// AbortMultipartUpload. Blocks on the disk.
pub fn abort(bucket: &Bucket, input: &AbortMultipartUploadInput) -> S3Result<()> {
    let upload = Upload::find(bucket, &input.key, &input.upload_id)?;
    upload.remove().map_err(|error| broken("given up", &input.key, &error))
}

/// ListParts: all of them at once. Blocks on the disk.
pub fn list_parts(bucket: &Bucket, input: ListPartsInput) -> S3Result<ListPartsOutput> {
    let upload = Upload::find(bucket, &input.key, &input.upload_id)?;
    let failed = |error: io::Error| broken("listed", &input.key, &error);
    let after = input.part_number_marker.unwrap_or(0);
    let mut parts = Vec::new();
    for (number, path) in upload.parts().map_err(failed)? {
        if number <= after {
            continue;
        }
        let (_, meta) = file::open(&path).map_err(failed)?;
        parts.push(Part {
            part_number: Some(number),
            size: Some(meta.len as i64),
            e_tag: Some(e_tag(&meta)),
            last_modified: Some(Timestamp::from(meta.modified())),
            ..Part::default()
        });
    }
    Ok(ListPartsOutput {
        bucket: Some(input.bucket),
        key: Some(input.key),
        upload_id: Some(input.upload_id),
        is_truncated: Some(false),
        parts: Some(parts),
        ..ListPartsOutput::default()
    })
}

/// ListMultipartUploads: all of them at once, in order of key. Blocks on the disk.
pub fn list_uploads(
    bucket: &Bucket,
    input: ListMultipartUploadsInput,
) -> S3Result<ListMultipartUploadsOutput> {
    unsupported(input.delimiter.is_some(), "listing uploads by delimiter")?;
    unsupported(
        input.key_marker.is_some() || input.upload_id_marker.is_some(),
        "listing uploads from a marker",
    )?;
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let failed = |error: io::Error| s3_error!(InternalError, "uploads could not be listed: {error}");
    let mut uploads = Vec::new();
    for (id, path) in records(bucket.uploads()).map_err(failed)? {
        let (_, record) = file::open(&path).map_err(failed)?;
        if record.key.starts_with(prefix) {
            uploads.push((record.key.clone(), record.modified_ms, id, record));
        }
    }
    uploads.sort_by(|a, b| (&a.0, a.1, &a.2).cmp(&(&b.0, b.1, &b.2)));
    let uploads = uploads.into_iter().map(|(key, _, id, record)| MultipartUpload {
        key: Some(key),
        upload_id: Some(id),
        initiated: Some(Timestamp::from(record.modified())),
        ..MultipartUpload::default()
    });
    Ok(ListMultipartUploadsOutput {
        bucket: Some(input.bucket),
        is_truncated: Some(false),
        prefix: input.prefix,
        uploads: Some(uploads.collect()),
        ..ListMultipartUploadsOutput::default()
    })
}

/// Removes the parts in `folder` that belong to no upload: a crash came between the two removals of an end.
pub fn remove_left_over(folder: &Path) -> io::Result<()> {
    let begun = records(folder)?;
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_stem().and_then(|id| id.to_str()).is_none_or(|id| !begun.contains_key(id)) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// An upload that has begun and not ended.
struct Upload {
    folder: PathBuf,
    id: String,
    record: Meta,
}

impl Upload {
    fn find(bucket: &Bucket, key: &str, id: &str) -> S3Result<Self> {
        let none = || s3_error!(NoSuchUpload, "there is no upload {id} to {key}");
        // The id comes from outside and becomes part of a path.
        if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(none());
        }
        let folder = bucket.uploads().to_owned();
        let (_, record) =
            file::open(&folder.join(format!("{id}.{RECORD}"))).map_err(|error| match error.kind() {
                io::ErrorKind::NotFound => none(),
                _ => broken("read", key, &error),
            })?;
        if record.key != key { Err(none()) } else { Ok(Self { folder, id: id.to_owned(), record }) }
    }

    fn part(&self, number: i32) -> PathBuf {
        self.folder.join(format!("{}.{number:05}", self.id))
    }

    fn parts(&self) -> io::Result<BTreeMap<i32, PathBuf>> {
        let mut parts = BTreeMap::new();
        for entry in fs::read_dir(&self.folder)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.split_once('.'));
            if let Some((id, number)) = name
                && id == self.id
                && let Ok(number) = number.parse()
            {
                parts.insert(number, path);
            }
        }
        Ok(parts)
    }

    fn remove(&self) -> io::Result<()> {
        // The record first: parts without one are known to be left over.
        fs::remove_file(self.folder.join(format!("{}.{RECORD}", self.id)))?;
        sync_dir(&self.folder)?;
        self.parts()?.values().try_for_each(fs::remove_file)
    }
}

/// Uploads that have begun: their ids, and the files that say so.
fn records(folder: &Path) -> io::Result<BTreeMap<String, PathBuf>> {
    let mut records = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == RECORD)
            && let Some(id) = path.file_stem().and_then(|id| id.to_str())
        {
            records.insert(id.to_owned(), path);
        }
    }
    Ok(records)
}
