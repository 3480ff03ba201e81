//! Long objects in parts.

use aws_sdk_s3::{
    primitives::ByteStream,
    types::{CompletedMultipartUpload, CompletedPart},
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use super::{Failure, PARTS_AT_ONCE, S3};
use crate::{Error, Result, retry::retried};

impl S3 {
    /// Uploads `bytes` in parts and commits them at once, unless the key is taken by then.
    pub(super) async fn put_parts(&self, key: &str, bytes: Bytes) -> Result<()> {
        let upload_id = retried(|| self.begin(key)).await?;
        let outcome = self.upload_and_complete(key, &upload_id, bytes).await;
        if !matches!(outcome, Ok(true)) {
            // Parts of an upload that is not completed would lie there for ever; the outcome stands either way.
            let abort = self.client.abort_multipart_upload().bucket(&self.config.bucket).key(key);
            if let Err(error) = abort.upload_id(&upload_id).send().await {
                tracing::warn!(key, upload_id, %error, "could not abort a multipart upload; its parts remain");
            }
        }
        outcome.map(|_| ())
    }

    async fn begin(&self, key: &str) -> Result<String> {
        let request = self.client.create_multipart_upload().bucket(&self.config.bucket).key(key);
        let created = request.send().await.map_err(|error| Failure::from(error).into_error("put", key))?;
        created.upload_id.ok_or_else(|| {
            let reason = "the store named no upload".to_owned();
            Error::Unavailable { operation: "put", key: key.to_owned(), reason }
        })
    }

    /// False when the key was taken.
    async fn upload_and_complete(&self, key: &str, upload_id: &str, bytes: Bytes) -> Result<bool> {
        let part_len = self.config.part_len as usize;
        let starts = (0..bytes.len()).step_by(part_len);
        let uploads = stream::iter(starts.zip(1i32..)).map(|(start, number)| {
            let part = bytes.slice(start..bytes.len().min(start + part_len));
            retried(move || self.upload_part(key, upload_id, number, part.clone()))
        });
        let parts: Vec<CompletedPart> = uploads.buffered(PARTS_AT_ONCE).try_collect().await?;
        let parts = CompletedMultipartUpload::builder().set_parts(Some(parts)).build();
        retried(|| self.complete(key, upload_id, parts.clone())).await
    }

    async fn complete(&self, key: &str, upload_id: &str, parts: CompletedMultipartUpload) -> Result<bool> {
        let request = self.client.complete_multipart_upload().bucket(&self.config.bucket).key(key);
        let request = request.upload_id(upload_id).multipart_upload(parts).if_none_match("*");
        match request.send().await.map_err(Failure::from) {
            Ok(_) => Ok(true),
            Err(failure) if failure.status == 412 => Ok(false),
            // An earlier attempt, of which the answer was lost, completed and ended the upload.
            Err(failure) if failure.code == "NoSuchUpload" && self.is_there(key).await? => Ok(true),
            Err(failure) => Err(failure.into_error("put", key)),
        }
    }

    async fn upload_part(
        &self,
        key: &str,
        upload_id: &str,
        number: i32,
        part: Bytes,
    ) -> Result<CompletedPart> {
        let request = self.client.upload_part().bucket(&self.config.bucket).key(key).upload_id(upload_id);
        let request = request.part_number(number).body(ByteStream::from(part)).customize();
        let request = if self.unsigned_payload { request.disable_payload_signing() } else { request };
        let output = request.send().await.map_err(|error| Failure::from(error).into_error("put", key))?;
        Ok(CompletedPart::builder()
            .part_number(number)
            .set_e_tag(output.e_tag)
            .set_checksum_crc32(output.checksum_crc32)
            .build())
    }
}
