# Output of the benches -> the table of docs/performance.md: one row a figure that has a target (storage.md section 4 has them all).
# Reads the lines of Google Benchmark (NAME/ARGS ... counter=value ...) and those of bench_support.h (NAME ... ratio=R target=T ...).
function number(text,   unit) {
  unit = substr(text, length(text))
  return unit == "k" ? text * 1e3 : unit == "M" ? text * 1e6 : unit == "G" ? text * 1e9 : unit == "m" ? text / 1e3 : unit == "u" ? text / 1e6 : text + 0
}
function row(name, figure, value, least, most, comparison, target) {
  range = least == "" ? "" : sprintf("%.2f-%.2f", least, most)
  printf "| %-34s | %-14s | %8.3f | %-11s | %s %.2f | %-6s |\n", name, figure, value, range, comparison == "<" ? "at most " : "at least", target,
         (comparison == "<" ? value <= target : value >= target) ? "met" : "MISSED"
}
function judge(name, figure, comparison, target) {
  if (figure in value) row(name, figure, value[figure], value[figure "_min"], value[figure "_max"], comparison, target)
}
BEGIN {
  printf "| %-34s | %-14s | %8s | %-11s | %-13s | %-6s |\n", "benchmark", "figure", "median", "rounds", "target", ""
  print "|---|---|---|---|---|---|"
}
$1 ~ /^(B[0-9]+|b[0-9]+)/ && /=/ {
  split("", value)
  for (i = 2; i <= NF; ++i) if (split($i, part, "=") == 2) value[part[1]] = number(part[2])
  name = $1
  sub(/\/iterations:1.*/, "", name)
  if (name ~ /^b/) { row(name " " $2, "ratio", value["ratio"], "", "", ">", value["target"]); next }
  if (name ~ /^B1a/) judge(name, "of_dsync", ">", 0.95)
  judge(name, "of_allowed", ">", 0.90)
  judge(name, "of_replay", ">", 0.90)
  if (name ~ /^B2.*\/10000\//) judge(name, "of_one", ">", 0.80)
  if (name ~ /^B2.*\/64\/1024/) judge("B14" substr(name, 3), "amplification", "<", 2.2)
  judge(name, "p50_ratio", "<", 1.15)
  judge(name, "p99_ratio", "<", 1.5)
  judge(name, "of_static", ">", 0.90)
  judge(name, "of_raw", ">", name ~ /^B6.*\/64/ ? 0.85 : name ~ /^B1a/ ? 0.70 : 0.90)
  judge(name, "ratio", "<", 1.25)
}
