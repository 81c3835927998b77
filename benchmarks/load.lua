-- Sends requests that were written to a file before, round-robin, with a number and a member of its own in each.
-- In the file: one request per line; \1 stands for CR LF, \2 for a number, \3 for a member, \4 for the number before;
-- all of twelve digits.
local accepted, pattern = nil, os.getenv("BENCH_ACCEPTED")
local members, number = tonumber(os.getenv("BENCH_MEMBERS")), tonumber(os.getenv("BENCH_FIRST"))
local requests, turn = {}, 0

local function split(line)
   local parts = {}
   for text, slot in (line:gsub("\1", "\r\n") .. "\5"):gmatch("([^\2-\5]*)([\2-\5])") do
      parts[#parts + 1] = text
      parts[#parts + 1] = slot
   end
   return parts
end

function init()
   for line in io.lines(os.getenv("BENCH_REQUESTS")) do
      requests[#requests + 1] = split(line)
   end
   accepted = io.open(os.getenv("BENCH_OUTPUT"), "w")
   answered = {}
end

function request()
   local parts, filled = requests[turn % #requests + 1], {}
   turn = turn + 1
   for position = 1, #parts, 2 do
      filled[position] = parts[position]
      if parts[position + 1] == "\2" then
         filled[position + 1] = string.format("%012d", number)
         number = number + 1
      elseif parts[position + 1] == "\3" then
         -- 7919 is prime: members take turns, but not in the order in which they lie on the disk
         filled[position + 1] = string.format("%012d", (number * 7919) % members + 1)
      elseif parts[position + 1] == "\4" then
         filled[position + 1] = string.format("%012d", number - 1)
      else
         filled[position + 1] = ""
      end
   end
   return table.concat(filled)
end

function response(status, headers, body)
   answered[status] = (answered[status] or 0) + 1
   if status >= 300 and not refusal then
      refusal = body
   end
   if status < 300 and pattern ~= "" then
      for id in body:gmatch(pattern) do
         accepted:write(id, "\n")
      end
   end
end

local threads = {}

function setup(thread)
   threads[#threads + 1] = thread
end

function done(summary)
   for _, thread in ipairs(threads) do
      for status, count in pairs(thread:get("answered")) do
         print("answered " .. status .. " " .. count)
      end
      local refusal = thread:get("refusal")
      if refusal then
         print("refusal " .. refusal)
      end
   end
   local errors = summary.errors
   print("seconds " .. summary.duration / 1e6)
   print("broken " .. errors.connect + errors.read + errors.write + errors.timeout)
end
