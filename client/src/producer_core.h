#pragma once
/// What public Producer handles share: its destruction closes the producer.
#include "src/publisher.h"

namespace tailrace::inline v1::detail {

class ProducerCore {
 public:
  ProducerCore(std::shared_ptr<ClientCore> client, std::shared_ptr<Publisher> publisher)
      : client_{std::move(client)}, publisher_{std::move(publisher)} {}
  ~ProducerCore();
  ProducerCore(const ProducerCore&) = delete;
  ProducerCore& operator=(const ProducerCore&) = delete;
  Publisher* operator->() { return publisher_.get(); }
  CloseReport close(Milliseconds deadline);

 private:
  std::shared_ptr<ClientCore> client_;  // the client lives as long as what was made from it
  std::shared_ptr<Publisher> publisher_;
};

}  // namespace tailrace::inline v1::detail
