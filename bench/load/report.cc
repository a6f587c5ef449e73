#include "bench/load/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

namespace tailrace::load {
namespace {

struct Quantile {
  const char* name;
  const char* field;  // in JSON, where a dot in a name would need quoting
  double value;
};
constexpr std::array kQuantiles = {Quantile{"p50", "p50_ns", 0.5}, Quantile{"p90", "p90_ns", 0.9}, Quantile{"p99", "p99_ns", 0.99}, Quantile{"p99.9", "p99_9_ns", 0.999},
                                   Quantile{"p99.99", "p99_99_ns", 0.9999}};

std::string human(std::chrono::nanoseconds value) {
  const double ns = static_cast<double>(value.count());
  if (ns < 1e4) return fmt::format("{:.1f} us", ns / 1e3);
  if (ns < 1e6) return fmt::format("{:.0f} us", ns / 1e3);
  if (ns < 1e8) return fmt::format("{:.2f} ms", ns / 1e6);
  if (ns < 1e9) return fmt::format("{:.0f} ms", ns / 1e6);
  return fmt::format("{:.2f} s", ns / 1e9);
}

std::string load_name(double per_second) {
  if (per_second >= 1e6) return fmt::format("{:g} M/s", per_second / 1e6);
  if (per_second >= 1e3) return fmt::format("{:g} k/s", per_second / 1e3);
  return fmt::format("{:g} /s", per_second);
}

std::string escaped_xml(std::string_view text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      default: out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
  }
  return out;
}

std::string quoted_json(std::string_view text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\', out += c;
    else if (static_cast<unsigned char>(c) < 0x20) out += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    else out += c;
  }
  return out + "\"";
}

std::string latency_json(const Histogram& h) {
  std::string out = fmt::format("{{\"count\":{},\"min_ns\":{},\"mean_ns\":{}", h.count(), h.min().count(), h.mean().count());
  for (const auto& q : kQuantiles) out += fmt::format(",\"{}\":{}", q.field, h.at(q.value).count());
  return out + fmt::format(",\"max_ns\":{}}}", h.max().count());
}

constexpr double kLeft = 76, kRight = 616, kTop = 56, kBottom = 336;

struct LogAxis {
  double low, high;  // powers of ten, seconds
  [[nodiscard]] double y(double seconds) const {
    const double part = (std::log10(std::max(seconds, 1e-9)) - std::log10(low)) / (std::log10(high) - std::log10(low));
    return kBottom - std::clamp(part, 0.0, 1.0) * (kBottom - kTop);
  }
};

LogAxis axis_for(double smallest, double largest) {
  LogAxis axis{std::pow(10, std::floor(std::log10(std::max(smallest, 1e-7)))), std::pow(10, std::ceil(std::log10(std::max(largest, 1e-6))))};
  if (axis.high <= axis.low) axis.high = axis.low * 10;
  return axis;
}

void grid(std::string& svg, const LogAxis& axis) {
  for (double decade = axis.low; decade <= axis.high * 1.001; decade *= 10) {
    svg += fmt::format("<line x1=\"{0}\" y1=\"{2:.1f}\" x2=\"{1}\" y2=\"{2:.1f}\" class=\"grid\"/><text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>\n", kLeft, kRight,
                       axis.y(decade), kLeft - 8, axis.y(decade) + 4, decade >= 0.9999 ? fmt::format("{:.0f} s", decade) : decade >= 0.00099 ? fmt::format("{:.0f} ms", decade * 1e3) : fmt::format("{:g} us", std::round(decade * 1e7) / 10));
  }
}

}  // namespace

double RunResult::records_per_second() const {
  const double seconds = std::chrono::duration<double>(elapsed).count();
  return seconds > 0 ? static_cast<double>(records) / seconds : 0;
}
double RunResult::megabytes_per_second() const {
  const double seconds = std::chrono::duration<double>(elapsed).count();
  return seconds > 0 ? static_cast<double>(bytes) / seconds / 1e6 : 0;
}

std::string text_report(const Conditions& c, std::span<const RunResult> runs) {
  std::string out = fmt::format(
      "bench {}  {}  durability {}  compression {}  {} B/record  {} partitions  {} producers\n"
      "on {}  topic {}  commit {}  kernel {}\n",
      c.kind, c.kind == "sub" ? "reading a whole topic as fast as it comes" : c.open_loop ? "open loop: latency from the intended send time" : "closed by the window (--max): latency holds at this load only", c.durability, c.compression,
      c.record_bytes, c.partitions, c.producers, c.servers, c.topic, c.commit, c.kernel);
  out += fmt::format("{:>10} {:>12} {:>9}", "offered", "records/s", "MB/s");
  for (const auto& q : kQuantiles) out += fmt::format(" {:>10}", q.name);
  out += fmt::format(" {:>10} {:>12} {:>8} {:>16}\n", "max", "sent late", "failed", "checksum");
  for (const auto& run : runs) {
    out += fmt::format("{:>10} {:>12.0f} {:>9.1f}", run.offered_per_second > 0 ? load_name(run.offered_per_second) : "max", run.records_per_second(), run.megabytes_per_second());
    for (const auto& q : kQuantiles) out += fmt::format(" {:>10}", run.latency.count() == 0 ? "-" : human(run.latency.at(q.value)));
    out += fmt::format(" {:>10} {:>12} {:>8} {:016x}\n", run.latency.count() == 0 ? "-" : human(run.latency.max()), run.send_delay.count() == 0 ? "-" : human(run.send_delay.at(0.99)),
                       run.failed, run.checksum);
  }
  return out;
}

std::string json_report(const Conditions& c, std::span<const RunResult> runs) {
  std::string out = fmt::format(
      "{{\"schema\":\"tailrace.bench.v1\",\"kind\":{},\"open_loop\":{},\"durability\":{},\"compression\":{},\"commit\":{},\"kernel\":{},\"servers\":{},\"topic\":{},"
      "\"record_bytes\":{},\"partitions\":{},\"producers\":{},\"runs\":[",
      quoted_json(c.kind), c.open_loop, quoted_json(c.durability), quoted_json(c.compression), quoted_json(c.commit), quoted_json(c.kernel), quoted_json(c.servers), quoted_json(c.topic),
      c.record_bytes, c.partitions, c.producers);
  bool first = true;
  for (const auto& run : runs) {
    out += fmt::format("{}\n{{\"offered_per_second\":{},\"records\":{},\"failed\":{},\"bytes\":{},\"elapsed_ns\":{},\"records_per_second\":{:.1f},\"bytes_per_second\":{:.0f},\"checksum\":\"{:016x}\",\"latency\":{},\"send_delay\":{}}}",
                       first ? "" : ",", run.offered_per_second, run.records, run.failed, run.bytes, run.elapsed.count(), run.records_per_second(), run.megabytes_per_second() * 1e6, run.checksum,
                       latency_json(run.latency), latency_json(run.send_delay));
    first = false;
  }
  return out + "]}\n";
}

std::string svg_report(const Conditions& c, std::span<const RunResult> runs) {
  std::string svg =
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"720\" height=\"410\" viewBox=\"0 0 720 410\" font-family=\"sans-serif\" font-size=\"12\">\n"
      "<style>.grid{stroke:#8884;stroke-width:1}text{fill:#555}polyline{fill:none;stroke-width:2}</style>\n"
      "<rect width=\"720\" height=\"410\" fill=\"#fff\"/>\n";
  svg += fmt::format("<text x=\"{}\" y=\"22\" font-size=\"15\">tailrace bench {}: latency {}</text>\n<text x=\"{}\" y=\"40\">{}</text>\n", kLeft, escaped_xml(c.kind),
                     runs.size() > 1 ? "against offered load" : "by percentile", kLeft,
                     escaped_xml(fmt::format("{} B records, durability {}, {} partitions, {} producers, compression {}, commit {}, kernel {}", c.record_bytes, c.durability, c.partitions, c.producers, c.compression, c.commit, c.kernel)));
  double smallest = 1e9, largest = 0;
  for (const auto& run : runs) {
    if (run.latency.count() == 0) continue;
    smallest = std::min(smallest, std::chrono::duration<double>(run.latency.at(0.5)).count());
    largest = std::max(largest, std::chrono::duration<double>(runs.size() > 1 ? run.latency.at(0.999) : run.latency.max()).count());
  }
  if (largest == 0) return svg + "<text x=\"200\" y=\"200\">no samples</text>\n</svg>\n";
  const auto axis = axis_for(smallest, largest);
  grid(svg, axis);
  static constexpr std::array kColours = {"#1b7", "#27c", "#c42"};
  if (runs.size() > 1) {
    static constexpr std::array<std::pair<const char*, double>, 3> kLines = {{{"p50", 0.5}, {"p99", 0.99}, {"p99.9", 0.999}}};
    double top_load = 0;
    for (const auto& run : runs) top_load = std::max(top_load, run.offered_per_second);
    auto x = [&](double load) { return kLeft + load / std::max(top_load, 1.0) * (kRight - kLeft); };
    for (std::size_t i = 0; i < kLines.size(); ++i) {
      std::string points;
      double last_y = kTop;
      for (const auto& run : runs) {
        if (run.latency.count() == 0) continue;
        last_y = axis.y(std::chrono::duration<double>(run.latency.at(kLines[i].second)).count());
        points += fmt::format("{:.1f},{:.1f} ", x(run.offered_per_second), last_y);
      }
      svg += fmt::format("<polyline stroke=\"{}\" points=\"{}\"/><text x=\"{}\" y=\"{:.1f}\" style=\"fill:{}\">{}</text>\n", kColours[i], points, kRight + 8, last_y + 4, kColours[i], kLines[i].first);
    }
    for (const auto& run : runs) svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", x(run.offered_per_second), kBottom + 18, load_name(run.offered_per_second));
    svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">offered load, records per second</text>\n", (kLeft + kRight) / 2, kBottom + 40);
  } else {
    // x grows with the number of nines, so that the tail has as much room as the body.
    auto x = [](double quantile) { return kLeft + std::min(-std::log10(std::max(1 - quantile, 1e-5)), 5.0) / 5.0 * (kRight - kLeft); };
    std::string points;
    for (int step = 0; step <= 100; ++step) {
      const double quantile = 1 - std::pow(10, -step / 20.0);
      points += fmt::format("{:.1f},{:.1f} ", x(quantile), axis.y(std::chrono::duration<double>(runs.front().latency.at(quantile)).count()));
    }
    svg += fmt::format("<polyline stroke=\"{}\" points=\"{}\"/>\n", kColours[1], points);
    for (auto [name, quantile] : {std::pair{"0", 0.0}, {"p90", 0.9}, {"p99", 0.99}, {"p99.9", 0.999}, {"p99.99", 0.9999}}) {
      svg += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", x(quantile), kBottom + 18, name);
    }
  }
  svg += fmt::format("<text x=\"18\" y=\"{}\" transform=\"rotate(-90 18 {})\" text-anchor=\"middle\">{}</text>\n</svg>\n", (kTop + kBottom) / 2, (kTop + kBottom) / 2,
                     c.kind == "e2e" ? "intended send to delivery" : "intended send to acknowledgement");
  return svg;
}

}  // namespace tailrace::load
