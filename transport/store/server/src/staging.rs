//! From a request's body to a file that is ready to be committed.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use s3s::{
    S3Result, StdError, TrailingHeaders,
    checksum::ChecksumHasher,
    crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256},
    dto::Checksum,
    s3_error,
};
use tokio::io::{AsyncWriteExt, BufWriter};

use crate::file::{Described, Meta, TempPath, footer, now_ms, sync_dir};

const WRITE_BUFFER_LEN: usize = 1 << 20;
/// A client that sends nothing for so long has gone away.
const BODY_IDLE_TIMEOUT: Duration = Duration::from_secs(60);

/// A temporary file being written, and the digest of what is in it.
pub struct Staging {
    temp: TempPath,
    file: BufWriter<tokio::fs::File>,
    hasher: blake3::Hasher,
    len: u64,
}

/// A whole object in a temporary file: closed by its footer, not yet synced.
#[derive(Debug)]
pub struct Staged {
    /// The file's path; dropping it gives the object up.
    pub temp: TempPath,
    /// The file, for syncing.
    pub file: File,
    /// Its footer.
    pub meta: Meta,
}

impl Staging {
    /// Starts at `path`, where nothing may be.
    pub async fn create(path: PathBuf) -> io::Result<Self> {
        let file = tokio::fs::File::create_new(&path).await?;
        let file = BufWriter::with_capacity(WRITE_BUFFER_LEN, file);
        Ok(Self { temp: TempPath::new(path), file, hasher: blake3::Hasher::new(), len: 0 })
    }

    /// Appends to the body.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.len += bytes.len() as u64;
        self.file.write_all(bytes).await
    }

    /// Closes the body with its footer.
    pub async fn finish(mut self, key: &str, described: Described) -> io::Result<Staged> {
        let e_tag = self.hasher.finalize().to_hex().to_string();
        let meta = Meta { key: key.to_owned(), len: self.len, e_tag, modified_ms: now_ms(), described };
        self.file.write_all(&footer(&meta)?).await?;
        self.file.flush().await?;
        let file = self.file.into_inner().into_std().await;
        Ok(Staged { temp: self.temp, file, meta })
    }
}

impl Staged {
    /// Puts it at `place`, where only its writer looks. Blocks on the disk; lasts once it returns.
    pub fn place(self, place: &Path) -> io::Result<Meta> {
        self.file.sync_data()?;
        self.temp.persist(place)?;
        place.parent().map_or(Ok(()), sync_dir)?;
        Ok(self.meta)
    }
}

/// What a client claims of a body, to be held against what came.
#[derive(Debug, Default)]
pub struct Claims {
    /// Length, in bytes.
    pub len: Option<i64>,
    /// Content-MD5, base64.
    pub md5: Option<String>,
    /// Checksums in headers.
    pub sums: Checksum,
    /// Names of the headers that follow the body, from `x-amz-trailer`.
    pub announced: Vec<String>,
    /// Where those will be.
    pub trailers: Option<TrailingHeaders>,
}

impl Claims {
    /// Whether a checksum is given or will be.
    fn wants(&self, in_header: &Option<String>, name: &str) -> bool {
        in_header.is_some() || self.announced.iter().any(|announced| announced == name)
    }

    /// The checksum as it was given, in the headers or, by now, behind the body.
    fn given(&self, in_header: &Option<String>, name: &str) -> Option<String> {
        let read = |headers: &hyper::HeaderMap| headers.get(name)?.to_str().ok().map(str::to_owned);
        in_header.clone().or_else(|| self.trailers.as_ref()?.read(read).flatten())
    }
}

const CRC32: &str = "x-amz-checksum-crc32";
const CRC32C: &str = "x-amz-checksum-crc32c";
const CRC64NVME: &str = "x-amz-checksum-crc64nvme";
const SHA1: &str = "x-amz-checksum-sha1";
const SHA256: &str = "x-amz-checksum-sha256";

/// Streams `body` into `staging` and verifies the claims; gives back the checksums that were found right.
pub async fn receive<B>(staging: &mut Staging, body: Option<B>, claims: Claims) -> S3Result<Checksum>
where
    B: Stream<Item = Result<Bytes, StdError>> + Unpin,
{
    let sums = &claims.sums;
    let mut md5 = claims.md5.is_some().then(Md5::new);
    let mut hasher = ChecksumHasher {
        crc32: claims.wants(&sums.checksum_crc32, CRC32).then(Crc32::new),
        crc32c: claims.wants(&sums.checksum_crc32c, CRC32C).then(Crc32c::new),
        crc64nvme: claims.wants(&sums.checksum_crc64nvme, CRC64NVME).then(Crc64Nvme::new),
        sha1: claims.wants(&sums.checksum_sha1, SHA1).then(Sha1::new),
        sha256: claims.wants(&sums.checksum_sha256, SHA256).then(Sha256::new),
    };
    if let Some(mut body) = body {
        loop {
            let chunk = tokio::time::timeout(BODY_IDLE_TIMEOUT, body.next()).await;
            let Some(chunk) = chunk.map_err(|_| s3_error!(RequestTimeout, "no byte came for a minute"))?
            else {
                break;
            };
            let chunk = chunk.map_err(|error| s3_error!(IncompleteBody, "the body broke off: {error}"))?;
            if let Some(md5) = &mut md5 {
                md5.update(&chunk);
            }
            hasher.update(&chunk);
            let written = staging.write(&chunk).await;
            written.map_err(|error| s3_error!(InternalError, "the body could not be stored: {error}"))?;
        }
    }
    if let Some(len) = claims.len.filter(|&len| u64::try_from(len) != Ok(staging.len)) {
        return Err(s3_error!(IncompleteBody, "the body has {} bytes, {len} were announced", staging.len));
    }
    let found = hasher.finalize();
    let found_md5 = md5.map(|md5| base64_simd::STANDARD.encode_to_string(md5.finalize()));
    for (name, claimed, found) in [
        ("Content-MD5", &claims.md5, &found_md5),
        (CRC32, &claims.given(&sums.checksum_crc32, CRC32), &found.checksum_crc32),
        (CRC32C, &claims.given(&sums.checksum_crc32c, CRC32C), &found.checksum_crc32c),
        (CRC64NVME, &claims.given(&sums.checksum_crc64nvme, CRC64NVME), &found.checksum_crc64nvme),
        (SHA1, &claims.given(&sums.checksum_sha1, SHA1), &found.checksum_sha1),
        (SHA256, &claims.given(&sums.checksum_sha256, SHA256), &found.checksum_sha256),
    ] {
        // One that was announced and never came differs as well.
        if claimed != found {
            return Err(s3_error!(BadDigest, "{name} is {found:?} of what came, {claimed:?} was claimed"));
        }
    }
    Ok(found)
}
