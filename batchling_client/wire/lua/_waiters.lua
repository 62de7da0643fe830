-- Who waits for a request in flight: mailboxes, comma separated, the latest to come last. '+' before them stands for
-- earlier ones that were left out: they are not told, look after their answers themselves, and may still wait.
-- one_more(waiting, mailbox): the list with that mailbox too.
-- some_left_out(waiting): whether anybody may wait whom the list does not name.

-- A client that is killed and started again and again leaves a mailbox behind each time, and a delivery writes to each.
-- Hardly ever do more than this many live at once; a live mailbox that is left out gets its answer seconds later.
local MOST_NAMED = 32

local function some_left_out(waiting)
  return string.find(waiting, '+', 1, true) ~= nil
end

local function one_more(waiting, mailbox)
  local names = {}
  for name in string.gmatch(waiting, '[%w_-]+') do
    names[#names + 1] = name
  end
  names[#names + 1] = mailbox
  local first = math.max(1, #names - MOST_NAMED + 1)
  local named = table.concat(names, ',', first)
  return (first > 1 or some_left_out(waiting)) and '+,' .. named or named
end
