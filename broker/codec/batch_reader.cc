#include "codec/batch_reader.h"

#include <fmt/format.h>

#include "codec/compression.h"
#include "codec/record_cursor.h"

namespace tailrace::broker::codec {

namespace layout = batch_layout;

Result<BatchReader> BatchReader::open(Bytes batch, ReadOptions options) {
  TAILRACE_TRY(BatchHeader header, read_batch_header(batch, limits::kMessageBytesCeiling));
  if (header.total_bytes() > batch.size()) {
    return fail(Errc::unexpected_end, fmt::format("the batch has {} bytes, {} are there", header.total_bytes(), batch.size()));
  }
  batch = batch.first(header.total_bytes());
  if (options.check_crc && batch_crc(batch) != header.crc) {
    return fail(Errc::corrupt_message, fmt::format("crc: stored {:08x}, computed {:08x}", header.crc, batch_crc(batch)));
  }
  if (header.record_count < 0 || header.last_offset_delta < 0 || header.record_count - 1 > header.last_offset_delta) {
    return fail(Errc::invalid_record, fmt::format("record count {} with last offset delta {}", header.record_count,
                                                  header.last_offset_delta));
  }
  BatchReader reader;
  reader.header_ = header;
  Bytes records = batch.subspan(layout::kHeaderBytes);
  // An emptied batch may keep its codec bits with nothing behind the header.
  if (header.compression() != Compression::none && !(header.record_count == 0 && records.empty())) {
    InflateBuffer inflated;
    TAILRACE_TRY_VOID(inflate(header.compression(), records, options.inflated_bytes_max, inflated));
    reader.inflated_ = inflated.take();
    records = reader.inflated_.bytes();
  }
  reader.at_ = records.data();
  reader.end_ = records.data() + records.size();
  return reader;
}

bool BatchReader::refuse(std::string why) {
  error_ = Error{Errc::invalid_record, fmt::format("record {}: {}", read_, why)};
  at_ = end_;
  read_ = header_.record_count;
  return false;
}

bool BatchReader::next(RecordView& view) {
  if (error_) return false;
  if (read_ == header_.record_count) return at_ == end_ ? false : refuse("bytes behind the last record");
  RawRecord record;
  if (BadField bad = read_record(at_, end_, record)) return refuse(bad);
  if (record.offset_delta <= last_delta_ || record.offset_delta > header_.last_offset_delta) return refuse("offset delta");
  std::int64_t timestamp = 0;
  if (__builtin_add_overflow(header_.base_timestamp, record.timestamp_delta, &timestamp)) return refuse("timestamp delta");
  std::int64_t offset = 0;
  if (__builtin_add_overflow(header_.base_offset.value(), std::int64_t{record.offset_delta}, &offset)) return refuse("base offset");

  view.offset_delta = record.offset_delta;
  view.offset = Offset{offset};
  view.timestamp_delta = record.timestamp_delta;
  view.timestamp = header_.has_log_append_time() ? header_.max_timestamp : timestamp;
  view.key.reset();
  view.value.reset();
  if (record.key_length >= 0) view.key = Bytes{record.key, static_cast<std::size_t>(record.key_length)};
  if (record.value_length >= 0) view.value = Bytes{record.value, static_cast<std::size_t>(record.value_length)};
  view.headers = HeaderRange{record.headers, record.end, record.header_count};
  at_ = record.end;
  last_delta_ = record.offset_delta;
  ++read_;
  return true;
}

}  // namespace tailrace::broker::codec
