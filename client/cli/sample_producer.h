#pragma once
/// `dev --seed orders`: a topic `orders` with a few generated events a second, so that there is something to look at.
#include <string>
#include <thread>

namespace tailrace::cli {

class SampleProducer {
 public:
  /// Publishes in a thread of its own until stop(); trouble is noted once on stderr and ends it.
  void start(const std::string& server);
  void stop();
  ~SampleProducer() { stop(); }

 private:
  std::jthread thread_;
};

}  // namespace tailrace::cli
