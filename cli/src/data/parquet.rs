//! Parquet tables: a document a row, one column read.

use super::documents::{Visit, no_field, open, pieces_of};
use crate::failure::{Failure, Result};
use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;
use parquet::schema::types::Type;
use std::path::Path;
use std::sync::Arc;

/// The rows of the table at `path`; row groups are read page by page.
pub fn rows(path: &Path, column: &str, visit: &mut Visit<'_>) -> Result<()> {
    let bad = |e: &dyn std::fmt::Display| {
        Failure::input(format!("{}: not a Parquet file that can be read ({e})", path.display()))
    };
    let reader = SerializedFileReader::new(open(path)?).map_err(|e| bad(&e))?;
    let schema = reader.metadata().file_metadata().schema();
    let Some(field) = schema.get_fields().iter().find(|field| field.name() == column) else {
        return Err(no_field(path, "the table", column));
    };
    let projection = Type::group_type_builder(schema.name())
        .with_fields(vec![Arc::clone(field)])
        .build()
        .map_err(|e| bad(&e))?;
    for (number, row) in reader.get_row_iter(Some(projection)).map_err(|e| bad(&e))?.enumerate() {
        let row = row.map_err(|e| bad(&e))?;
        match row.get_column_iter().next() {
            Some((_, Field::Str(document))) => pieces_of(document, visit)?,
            _ => return Err(no_field(path, &format!("row {}", number + 1), column)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::data_type::{ByteArray, ByteArrayType};
    use parquet::file::writer::SerializedFileWriter;
    use parquet::schema::parser::parse_message_type;

    #[test]
    fn a_row_is_a_document() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.parquet");
        let schema = "message table { required binary id (UTF8); required binary text (UTF8); }";
        let schema = Arc::new(parse_message_type(schema).unwrap());
        let file = std::fs::File::create(&path).unwrap();
        let mut writer = SerializedFileWriter::new(file, schema, Arc::default()).unwrap();
        let mut group = writer.next_row_group().unwrap();
        for words in [["1", "2"], ["first", "zweitér"]] {
            let mut column = group.next_column().unwrap().unwrap();
            let values = words.map(ByteArray::from);
            column.typed::<ByteArrayType>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        group.close().unwrap();
        writer.close().unwrap();

        let read = |column: &str| {
            let mut seen = vec![];
            rows(&path, column, &mut |piece, last| {
                seen.push((piece.to_owned(), last));
                Ok(())
            })
            .map(|()| seen)
        };
        assert_eq!(read("text").unwrap(), [("first".to_owned(), true), ("zweitér".to_owned(), true)]);
        let said = read("body").err().unwrap().to_string();
        assert!(said.contains("the table: no text in the field \"body\""), "{said}");
    }
}
