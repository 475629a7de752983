// One launch of the kernel called KERNEL, of the program in program.cu, on fibers of the host.
#include "cuda.cuh"
#include "program.cu"

namespace emulation {

constexpr size_t kStackBytes = 1 << 16;
static const mpk::Launches* arguments;

static void run_fiber() {
  KERNEL(*arguments);
  fiber().done = true;
  suspend();
}

static void make_block(unsigned number, unsigned shared_bytes) {
  Block& block = machine.blocks[number];
  size_t space = shared_bytes + 128;
  block.memory.reset(new char[space]);
  void* begin = block.memory.get();
  block.shared = static_cast<char*>(std::align(128, shared_bytes, begin, space));
  std::memset(block.shared, 0xCD, shared_bytes);
  block.warps.resize(machine.num_threads / kWarpLanes);
  for (unsigned thread = 0; thread < machine.num_threads; ++thread) {
    const int id = number * machine.num_threads + thread;
    Fiber& fiber = machine.fibers[id];
    fiber.thread = {thread, 0, 0}, fiber.block = {number, 0, 0}, fiber.home = &block;
    fiber.stack.reset(new char[kStackBytes]);
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStackBytes;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, run_fiber, 0);
    machine.ready.push_back(id);
  }
}

static void finish_copy() {
  const size_t which = machine.shuffles ? machine.random() % machine.copies.size() : 0;
  const auto copy = machine.copies[which];
  machine.copies.erase(machine.copies.begin() + which);
  copy();
}

static void run_next() {
  if (machine.shuffles && machine.random() % 16 == 0) {  // somebody else's turn
    std::swap(machine.ready.front(), machine.ready[machine.random() % machine.ready.size()]);
  }
  machine.current = machine.ready.front();
  machine.ready.pop_front();
  swapcontext(&machine.scheduler, &fiber().context);
}

}  // namespace emulation

// Returns how many threads have not ended. Seed 0: in turn; otherwise threads and copies take turns at random.
extern "C" int emulate(const void* argument, unsigned blocks, unsigned threads, unsigned shared_bytes, unsigned seed) {
  using namespace emulation;
  const mpk::Launches copy = *static_cast<const mpk::Launches*>(argument);
  arguments = &copy;
  machine = Machine();
  machine.num_blocks = blocks, machine.num_threads = threads;
  machine.shuffles = seed != 0;
  machine.random.seed(seed);
  machine.multicast = copy.of[0].multicast;
  machine.arenas.assign(copy.of[0].peer, copy.of[0].peer + mpk::kRanks);
  machine.blocks.resize(blocks);
  machine.fibers.resize(static_cast<size_t>(blocks) * threads);
  for (unsigned block = 0; block < blocks; ++block) make_block(block, shared_bytes);
  constexpr unsigned kTurnsPerCopy = 64;
  for (unsigned turn = 0; !machine.ready.empty() || !machine.copies.empty(); ++turn) {
    if (!machine.copies.empty() && (machine.ready.empty() || turn % kTurnsPerCopy == 0)) finish_copy();
    if (!machine.ready.empty()) run_next();
  }
  return static_cast<int>(
      std::count_if(machine.fibers.begin(), machine.fibers.end(), [](Fiber& f) { return !f.done; }));
}
