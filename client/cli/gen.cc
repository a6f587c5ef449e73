// gen orders: the demo's input.
#include "bench/load/orders.h"
#include "commands.h"
#include "interrupt.h"

namespace tailrace::cli {

Outcome<int> gen_orders(Context& context, const GenFlags& flags) {
  interrupt::install();
  load::OrderEvents events{flags.seed};
  for (std::uint64_t i = 0; i < flags.count && !context.out.closed() && context.out.error() == 0; ++i) {
    if (interrupt::requested()) return finished(context, kInterrupted);
    context.out.write(events.next().line);
    context.out.write("\n");
  }
  return finished(context);
}

}  // namespace tailrace::cli
