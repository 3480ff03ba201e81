//! The operations that `s3s` parses, handed to the modules that do them.

use std::sync::Arc;

use hyper::HeaderMap;
use s3s::{
    S3, S3Request, S3Response, S3Result,
    dto::{
        AbortMultipartUploadInput, AbortMultipartUploadOutput, Checksum, CompleteMultipartUploadInput,
        CompleteMultipartUploadOutput, CopyObjectInput, CopyObjectOutput, CreateBucketInput,
        CreateBucketOutput, CreateMultipartUploadInput, CreateMultipartUploadOutput, DeleteObjectInput,
        DeleteObjectOutput, DeleteObjectsInput, DeleteObjectsOutput, GetObjectInput, GetObjectOutput,
        HeadBucketInput, HeadBucketOutput, HeadObjectInput, HeadObjectOutput, ListMultipartUploadsInput,
        ListMultipartUploadsOutput, ListObjectsV2Input, ListObjectsV2Output, ListPartsInput, ListPartsOutput,
        PutObjectInput, PutObjectOutput, UploadPartInput, UploadPartOutput,
    },
    s3_error,
};

use crate::{bucket::Condition, disk::Disk, list::list, multipart, objects, staging::Claims};

/// The server's state behind the protocol.
pub struct Protocol {
    disk: Arc<Disk>,
}

impl Protocol {
    /// Serves what is on `disk`.
    pub fn new(disk: Disk) -> Self {
        Self { disk: Arc::new(disk) }
    }
}

/// What a request claims of its body; two types of request have the same fields for it.
macro_rules! claims {
    ($req:expr) => {
        Claims {
            len: $req.input.content_length,
            md5: $req.input.content_md5.clone(),
            sums: Checksum {
                checksum_crc32: $req.input.checksum_crc32.clone(),
                checksum_crc32c: $req.input.checksum_crc32c.clone(),
                checksum_crc64nvme: $req.input.checksum_crc64nvme.clone(),
                checksum_sha1: $req.input.checksum_sha1.clone(),
                checksum_sha256: $req.input.checksum_sha256.clone(),
                checksum_type: None,
            },
            announced: announced(&$req.headers),
            trailers: $req.trailing_headers.clone(),
        }
    };
}

#[async_trait::async_trait]
impl S3 for Protocol {
    async fn create_bucket(&self, req: S3Request<CreateBucketInput>) -> Answer<CreateBucketOutput> {
        let disk = Arc::clone(&self.disk);
        let location = format!("/{}", req.input.bucket);
        blocking(move || disk.create_bucket(&req.input.bucket)).await?;
        answer(CreateBucketOutput { location: Some(location) })
    }

    async fn head_bucket(&self, req: S3Request<HeadBucketInput>) -> Answer<HeadBucketOutput> {
        self.disk.bucket(&req.input.bucket)?;
        answer(HeadBucketOutput::default())
    }

    async fn put_object(&self, req: S3Request<PutObjectInput>) -> Answer<PutObjectOutput> {
        let bucket = self.disk.bucket(&req.input.bucket)?;
        let claims = claims!(req);
        answer(objects::put(bucket, req.input, claims).await?)
    }

    async fn get_object(&self, req: S3Request<GetObjectInput>) -> Answer<GetObjectOutput> {
        let bucket = self.disk.bucket(&req.input.bucket)?;
        let (output, status) = objects::get(bucket, req.input).await?;
        Ok(S3Response::with_status(output, status))
    }

    async fn head_object(&self, req: S3Request<HeadObjectInput>) -> Answer<HeadObjectOutput> {
        let bucket = self.disk.bucket(&req.input.bucket)?;
        answer(objects::head(&bucket, req.input)?)
    }

    async fn copy_object(&self, req: S3Request<CopyObjectInput>) -> Answer<CopyObjectOutput> {
        let to = self.disk.bucket(&req.input.bucket)?;
        let from = self.disk.bucket(objects::copy_source(&req.input.copy_source)?.0)?;
        answer(objects::copy(from, to, req.input).await?)
    }

    async fn delete_object(&self, req: S3Request<DeleteObjectInput>) -> Answer<DeleteObjectOutput> {
        let input = req.input;
        unsupported(input.version_id.is_some(), "versions")?;
        let bucket = self.disk.bucket(&input.bucket)?;
        let condition = Condition { matches: input.if_match, none_match: None };
        blocking(move || bucket.delete(&input.key, &condition)).await?;
        answer(DeleteObjectOutput::default())
    }

    async fn delete_objects(&self, req: S3Request<DeleteObjectsInput>) -> Answer<DeleteObjectsOutput> {
        let bucket = self.disk.bucket(&req.input.bucket)?;
        answer(blocking(move || objects::delete_many(&bucket, req.input.delete)).await?)
    }

    async fn list_objects_v2(&self, req: S3Request<ListObjectsV2Input>) -> Answer<ListObjectsV2Output> {
        let bucket = self.disk.bucket(&req.input.bucket)?;
        answer(list(&bucket, req.input)?)
    }

    async fn create_multipart_upload(
        &self,
        req: S3Request<CreateMultipartUploadInput>,
    ) -> Answer<CreateMultipartUploadOutput> {
        let bucket = self.disk.bucket(&req.input.bucket)?;
        answer(multipart::create(bucket, req.input).await?)
    }

    async fn upload_part(&self, req: S3Request<UploadPartInput>) -> Answer<UploadPartOutput> {
        let bucket = self.disk.bucket(&req.input.bucket)?;
        let claims = claims!(req);
        answer(multipart::upload_part(bucket, req.input, claims).await?)
    }

    async fn complete_multipart_upload(
        &self,
        req: S3Request<CompleteMultipartUploadInput>,
    ) -> Answer<CompleteMultipartUploadOutput> {
        let bucket = self.disk.bucket(&req.input.bucket)?;
        answer(multipart::complete(bucket, req.input).await?)
    }

    async fn abort_multipart_upload(
        &self,
        req: S3Request<AbortMultipartUploadInput>,
    ) -> Answer<AbortMultipartUploadOutput> {
        let bucket = self.disk.bucket(&req.input.bucket)?;
        blocking(move || multipart::abort(&bucket, &req.input)).await?;
        answer(AbortMultipartUploadOutput::default())
    }

    async fn list_parts(&self, req: S3Request<ListPartsInput>) -> Answer<ListPartsOutput> {
        let bucket = self.disk.bucket(&req.input.bucket)?;
        answer(blocking(move || multipart::list_parts(&bucket, req.input)).await?)
    }

    async fn list_multipart_uploads(
        &self,
        req: S3Request<ListMultipartUploadsInput>,
    ) -> Answer<ListMultipartUploadsOutput> {
        let bucket = self.disk.bucket(&req.input.bucket)?;
        answer(blocking(move || multipart::list_uploads(&bucket, req.input)).await?)
    }
}

type Answer<T> = S3Result<S3Response<T>>;

/// Runs what waits for the disk where waiting is allowed. Once begun it ends, even if the client goes away: a commit
/// is never left between its rename and its place in the index.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> S3Result<T> + Send + 'static) -> S3Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(s3_error!(InternalError, "the server failed: {error}")))
}

/// Refuses what would otherwise be silently ignored.
pub fn unsupported(asked: bool, what: &str) -> S3Result<()> {
    if asked { Err(s3_error!(NotImplemented, "this server does not do: {what}")) } else { Ok(()) }
}

fn answer<T>(output: T) -> Answer<T> {
    Ok(S3Response::new(output))
}

/// Names, in lower case, of the headers that follow the body.
fn announced(headers: &HeaderMap) -> Vec<String> {
    let values = headers.get_all("x-amz-trailer").iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|names| names.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}
