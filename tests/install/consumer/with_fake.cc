// Starts a fake broker and runs commands against it: with_fake COMMAND... ; each gets the broker's address for {}
#include <tailrace/testing.h>

#include <cstdlib>
#include <iostream>
#include <string>

int main(int argc, char** argv) {
  tailrace::testing::FakeBroker broker;
  broker.create_topic("orders", 3);
  for (int i = 1; i < argc; ++i) {
    std::string command = argv[i];
    for (auto at = command.find("{}"); at != std::string::npos; at = command.find("{}")) command.replace(at, 2, broker.address());
    int status = std::system(command.c_str());
    std::cout << command << ": " << (status == 0 ? "ok" : "FAILED") << std::endl;
    if (status != 0) return 1;
  }
  std::cout << broker.record_count("orders") << " records in the fake broker\n";
  return 0;
}
