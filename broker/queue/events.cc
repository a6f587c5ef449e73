#include "queue/events.h"

#include <type_traits>

namespace tailrace::broker::queue {
namespace {

class Writer {
 public:
  explicit Writer(std::vector<std::byte>& out) : out_{out} {}
  template <class T>
  void put(T value) {
    std::size_t at = out_.size();
    out_.resize(at + sizeof(T));
    store_le(out_.data() + at, value);
  }

 private:
  std::vector<std::byte>& out_;
};

}  // namespace

void encode(const Event& event, std::vector<std::byte>& into) {
  Writer w{into};
  w.put(static_cast<std::uint8_t>(event.index()));
  std::visit(
      [&](const auto& e) {
        using E = std::decay_t<decltype(e)>;
        if constexpr (std::is_same_v<E, Expired>) {
          w.put(e.from.value());
          w.put(e.to.value());
        } else {
          w.put(e.offset.value());
        }
        if constexpr (std::is_same_v<E, Attempted>) {
          w.put(e.attempt);
          w.put(e.worker);
        }
        if constexpr (requires { e.until; }) w.put(e.until);
        if constexpr (requires { e.key; }) w.put(e.key);
        if constexpr (requires { e.reason; }) w.put(static_cast<std::uint8_t>(e.reason));
      },
      event);
}

Result<Event> decode_event(Bytes bytes) {
  ByteReader in{bytes};
  auto kind = in.le<std::uint8_t>();
  Event out;
  switch (kind) {
    case 0: {
      Attempted e{.offset = Offset{in.le<std::int64_t>()}};
      e.attempt = in.le<std::uint32_t>();
      e.worker = in.le<std::uint64_t>();
      e.until = in.le<std::int64_t>();
      e.key = in.le<std::uint64_t>();
      out = e;
      break;
    }
    case 1: {
      Held e{.offset = Offset{in.le<std::int64_t>()}};
      e.key = in.le<std::uint64_t>();
      out = e;
      break;
    }
    case 2: out = Acked{Offset{in.le<std::int64_t>()}}; break;
    case 3: {
      Delayed e{.offset = Offset{in.le<std::int64_t>()}};
      e.until = in.le<std::int64_t>();
      out = e;
      break;
    }
    case 4: {
      Extended e{.offset = Offset{in.le<std::int64_t>()}};
      e.until = in.le<std::int64_t>();
      out = e;
      break;
    }
    case 5: {
      Condemned e{.offset = Offset{in.le<std::int64_t>()}};
      auto reason = in.le<std::uint8_t>();
      if (reason > static_cast<std::uint8_t>(Reason::retention)) return fail(Errc::corrupt, "queue event: reason");
      e.reason = static_cast<Reason>(reason);
      out = e;
      break;
    }
    case 6: out = Buried{Offset{in.le<std::int64_t>()}}; break;
    case 7: {
      Expired e{.from = Offset{in.le<std::int64_t>()}};
      e.to = Offset{in.le<std::int64_t>()};
      out = e;
      break;
    }
    default: return in.ok() ? fail(Errc::newer_format, "queue event") : fail(Errc::corrupt, "queue event: empty");
  }
  if (!in.ok() || in.remaining() != 0) return fail(Errc::corrupt, "queue event: length");
  return out;
}

}  // namespace tailrace::broker::queue
