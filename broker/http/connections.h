#pragma once
/// The sockets of the HTTP port: one thread reads request heads and sends answers of all of them, a few others make the answers.
/// So a client that is slow or silent costs a place here and no thread, and the end waits for none of them.
///
/// Bound    kConnectionsMax sockets: one more drops one that was answered and has not hung up, or else the one that has been silent for longest. A head of kHeadBytesMax. kPatience
///          for the head, then as much for taking the answer. Answers not taken: kUnsentBytesMax, beyond it the oldest is
///          dropped (a client that reads has its answer at once); and kMadeMax and one a thread on their way there.
/// Request  one a connection; a body is not read (nothing here takes one).
/// Thread   take() from any thread; Answer is called on `threads` threads at once.
#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace tailrace::broker::http {

class Connections {
 public:
  static constexpr std::size_t kConnectionsMax = 256;
  static constexpr std::size_t kHeadBytesMax = 8 * 1024;
  static constexpr std::size_t kUnsentBytesMax = 16 * 1024 * 1024;
  static constexpr std::size_t kMadeMax = 4;

  using Answer = std::function<std::string(const std::string& head)>;  // the whole response

  Connections(std::size_t threads, Answer answer);
  ~Connections();  // closes all; waits for the answers that are being made, no
                   // longer
  Connections(const Connections&) = delete;
  Connections& operator=(const Connections&) = delete;

  void take(int socket);  // and closes it

 private:
  struct Made {
    int socket;
    std::string text;
  };
  class Sockets;  // the one thread's
  void serve();
  void make();  // each of the others
  void wake() const;

  Answer answer_;
  int wake_ = -1;
  std::mutex mutex_;  // all below
  std::condition_variable work_;
  std::vector<int> fresh_;
  std::deque<std::pair<int, std::string>> heads_;
  std::vector<Made> made_;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace tailrace::broker::http
