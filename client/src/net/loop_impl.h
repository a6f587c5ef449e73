#pragma once
/// Shared by the files of this folder only.
#include <asio/io_context.hpp>
#include <asio/executor_work_guard.hpp>
#include <atomic>
#include <thread>

#include "src/net/loop.h"

namespace tailrace::inline v1::detail {

struct Loop::Impl {
  asio::io_context context{1};
  asio::executor_work_guard<asio::io_context::executor_type> work = asio::make_work_guard(context);
  std::atomic<std::thread::id> thread{};
};

}  // namespace tailrace::inline v1::detail
