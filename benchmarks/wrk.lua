-- What wrk asks for, and what it tells at the end: one line of JSON.
-- Arguments: a file of request targets, one a line; "once" or "always"; the milliseconds between an
-- answer and the next request of its connection. Targets are asked for in their order; with "once",
-- wrk ends behind the last of them.

local ffi = require("ffi")
ffi.cdef [[ int getpid(void); int kill(int pid, int signal); ]]
local SIGINT = 2

local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  requests, next_one, others = {}, 1, 0
  for line in io.lines(args[1]) do
    table.insert(requests, wrk.format(nil, line))
  end
  once = args[2] == "once"
  local pause_ms = tonumber(args[3])
  if pause_ms > 0 then
    function delay()
      return pause_ms
    end
  end
end

function request()
  if next_one > #requests then
    if once then
      wrk.thread:stop()
      ffi.C.kill(ffi.C.getpid(), SIGINT)
    end
    next_one = 1
  end
  next_one = next_one + 1
  return requests[next_one - 1]
end

function response(status)
  if status ~= 302 then
    others = others + 1
  end
end

function done(summary, latency)
  local others, errors = 0, summary.errors
  for _, thread in ipairs(threads) do
    others = others + thread:get("others")
  end
  io.write(string.format(
    '{"answers": %d, "duration_s": %.6f, "p50_ms": %.3f, "p99_ms": %.3f, "others": %d, "lost": %d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, others,
    errors.connect + errors.read + errors.write + errors.timeout
  ))
end
