#include "bench/load/report.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace tailrace::load {
namespace {

RunResult run_at(double offered, int milliseconds) {
  RunResult run;
  run.offered_per_second = offered;
  run.records = 1000;
  run.bytes = 100'000;
  run.elapsed = std::chrono::seconds{2};
  for (int i = 1; i <= 1000; ++i) run.latency.record(std::chrono::microseconds{i * milliseconds});
  return run;
}

Conditions conditions() {
  Conditions c;
  c.kind = "pub";
  c.durability = "quorum";
  c.topic = "a<b>&\"c";
  c.servers = "127.0.0.1:7070";
  c.kernel = "6.1";
  c.commit = "abc";
  c.compression = "none";
  return c;
}

// The JSON is contract: base units, and every condition without which a figure means nothing.
TEST(Report, JsonStatesConditionsAndPercentiles) {
  const RunResult runs[] = {run_at(500, 1)};
  auto json = nlohmann::json::parse(json_report(conditions(), runs));
  EXPECT_EQ(json["schema"], "tailrace.bench.v1");
  EXPECT_EQ(json["durability"], "quorum");
  EXPECT_EQ(json["topic"], "a<b>&\"c");
  EXPECT_EQ(json["runs"][0]["records_per_second"], 500.0);
  EXPECT_EQ(json["runs"][0]["bytes_per_second"], 50'000);
  const auto& latency = json["runs"][0]["latency"];
  EXPECT_NEAR(latency["p50_ns"].get<double>(), 500e3, 500e3 / 100);
  EXPECT_NEAR(latency["p99_99_ns"].get<double>(), 1e6, 1e4);
  EXPECT_EQ(latency["max_ns"], 1'000'000);
}

// A picture that a browser refuses is no picture: markup characters of names must be escaped.
TEST(Report, SvgEscapesAndDrawsALineForEachPercentile) {
  const RunResult runs[] = {run_at(500, 1), run_at(1000, 4)};
  auto c = conditions();
  c.commit = "<&>";
  auto svg = svg_report(c, runs);
  EXPECT_TRUE(svg.starts_with("<svg "));
  EXPECT_EQ(svg.find("<&>"), std::string::npos);
  EXPECT_NE(svg.find("&lt;&amp;&gt;"), std::string::npos);
  std::size_t lines = 0;
  for (auto at = svg.find("<polyline"); at != std::string::npos; at = svg.find("<polyline", at + 1)) ++lines;
  EXPECT_EQ(lines, 3u);
  EXPECT_NE(svg.find("offered load"), std::string::npos);
}

// --max has no intended times: the text must not let its latencies pass for those of an open-loop run.
TEST(Report, TextSaysWhetherTheLoopWasOpen) {
  const RunResult runs[] = {run_at(0, 1)};
  auto c = conditions();
  EXPECT_NE(text_report(c, runs).find("open loop"), std::string::npos);
  c.open_loop = false;
  EXPECT_EQ(text_report(c, runs).find("open loop"), std::string::npos);
}

// A run in which nothing was acknowledged still reports.
TEST(Report, NothingMeasuredIsSaid) {
  const RunResult runs[] = {RunResult{}};
  EXPECT_NE(svg_report(conditions(), runs).find("no samples"), std::string::npos);
  EXPECT_NE(text_report(conditions(), runs).find(" - "), std::string::npos);
}

}  // namespace
}  // namespace tailrace::load
