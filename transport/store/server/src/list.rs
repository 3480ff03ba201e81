//! ListObjectsV2.

use s3s::{
    S3Result,
    dto::{CommonPrefix, ListObjectsV2Input, ListObjectsV2Output, Object, Timestamp},
    s3_error,
};

use crate::{bucket::Bucket, objects::e_tag};

const MAX_KEYS: i32 = 1000;

/// One page, in order of key; keys that share a prefix up to the delimiter are one entry.
pub fn list(bucket: &Bucket, input: ListObjectsV2Input) -> S3Result<ListObjectsV2Output> {
    let max_keys = input.max_keys.unwrap_or(MAX_KEYS).clamp(0, MAX_KEYS);
    let prefix = input.prefix.as_deref().unwrap_or_default();
    let delimiter = input.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty());
    let mut after = match &input.continuation_token {
        Some(token) => read_token(token)?,
        None => input.start_after.clone().unwrap_or_default(),
    };
    let resumed = input.continuation_token.is_some();
    let mut contents = Vec::new();
    let mut common: Vec<String> = Vec::new();
    let mut is_truncated = false;
    'pages: loop {
        let page = bucket.list(prefix, &after, MAX_KEYS as usize + 1);
        if page.is_empty() {
            break;
        }
        for meta in page {
            let shared = delimiter.and_then(|delimiter| {
                let at = meta.key[prefix.len()..].find(delimiter)?;
                Some(&meta.key[..prefix.len() + at + delimiter.len()])
            });
            let counted = shared.is_some_and(|shared| common.last().is_some_and(|last| last == shared));
            // A page that ended inside a common prefix has told of it.
            let told = shared.is_some_and(|shared| resumed && common.is_empty() && after.starts_with(shared));
            if !counted && !told {
                if contents.len() + common.len() == max_keys as usize {
                    is_truncated = max_keys > 0;
                    break 'pages;
                }
                match shared {
                    Some(shared) => common.push(shared.to_owned()),
                    None => contents.push(Object {
                        key: Some(meta.key.clone()),
                        size: Some(meta.len as i64),
                        e_tag: Some(e_tag(&meta)),
                        last_modified: Some(Timestamp::from(meta.modified())),
                        ..Object::default()
                    }),
                }
            }
            after.clone_from(&meta.key);
        }
    }
    Ok(ListObjectsV2Output {
        name: Some(input.bucket),
        key_count: Some((contents.len() + common.len()) as i32),
        max_keys: Some(max_keys),
        is_truncated: Some(is_truncated),
        next_continuation_token: is_truncated.then(|| hex::encode(&after)),
        continuation_token: input.continuation_token,
        contents: Some(contents),
        common_prefixes: Some(
            common.into_iter().map(|prefix| CommonPrefix { prefix: Some(prefix) }).collect(),
        ),
        delimiter: input.delimiter,
        prefix: input.prefix,
        start_after: input.start_after,
        ..ListObjectsV2Output::default()
    })
}

/// A token is the last key seen, in hexadecimal.
fn read_token(token: &str) -> S3Result<String> {
    let key = hex::decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    key.ok_or_else(|| s3_error!(InvalidArgument, "the continuation token is none of ours"))
}
