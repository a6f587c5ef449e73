#pragma once
/// The commands. Each answers its exit code, or a Failure that main() prints.
#include <span>
#include <string>
#include <vector>

#include "context.h"

namespace tailrace::cli {

[[nodiscard]] Outcome<int> topic_create(Context& context, const TopicFlags& flags);
[[nodiscard]] Outcome<int> topic_list(Context& context, const TopicFlags& flags);
[[nodiscard]] Outcome<int> topic_describe(Context& context, const TopicFlags& flags);
[[nodiscard]] Outcome<int> topic_alter(Context& context, const TopicFlags& flags);
[[nodiscard]] Outcome<int> topic_delete(Context& context, const TopicFlags& flags);
[[nodiscard]] Outcome<int> topic_purge(Context& context, const TopicFlags& flags);
[[nodiscard]] Outcome<int> topic_skip_damage(Context& context, const TopicFlags& flags);

[[nodiscard]] Outcome<int> pub(Context& context, const PubFlags& flags);
[[nodiscard]] Outcome<int> tail(Context& context, const TailFlags& flags);
/// As a member of a group, storing what was printed.
[[nodiscard]] Outcome<int> tail_group(Context& context, const TailFlags& flags);

[[nodiscard]] Outcome<int> group_list(Context& context, const GroupFlags& flags);
[[nodiscard]] Outcome<int> group_describe(Context& context, const GroupFlags& flags);
[[nodiscard]] Outcome<int> group_members(Context& context, const GroupFlags& flags);
[[nodiscard]] Outcome<int> group_lag(Context& context, const GroupFlags& flags);
[[nodiscard]] Outcome<int> group_explain(Context& context, const GroupFlags& flags);
[[nodiscard]] Outcome<int> group_reset(Context& context, const GroupFlags& flags);
[[nodiscard]] Outcome<int> group_delete(Context& context, const GroupFlags& flags);

[[nodiscard]] Outcome<int> stream_append(Context& context, const StreamFlags& flags);
[[nodiscard]] Outcome<int> stream_read(Context& context, const StreamFlags& flags);
[[nodiscard]] Outcome<int> stream_list(Context& context, const StreamFlags& flags);
[[nodiscard]] Outcome<int> stream_describe(Context& context, const StreamFlags& flags);
[[nodiscard]] Outcome<int> stream_hide(Context& context, const StreamFlags& flags);

[[nodiscard]] Outcome<int> log_verify(Context& context, const LogFlags& flags);
[[nodiscard]] Outcome<int> log_dump(Context& context, const LogFlags& flags);

[[nodiscard]] Outcome<int> server(Context& context, const ServerFlags& flags);
[[nodiscard]] Outcome<int> dev(Context& context, const ServerFlags& flags);
[[nodiscard]] Outcome<int> config_check(Context& context, const ServerFlags& flags);
[[nodiscard]] Outcome<int> config_show(Context& context, const ServerFlags& flags);
/// What `config explain` knows: "wal.file_bytes", "topic.retention_time"...
[[nodiscard]] std::vector<std::string> configuration_keys();
[[nodiscard]] Outcome<int> config_explain(Context& context, const ServerFlags& flags);

[[nodiscard]] Outcome<int> explain(Context& context, const ExplainFlags& flags);
[[nodiscard]] Outcome<int> bench(Context& context, const BenchFlags& flags);
[[nodiscard]] Outcome<int> gen_orders(Context& context, const GenFlags& flags);

}  // namespace tailrace::cli
