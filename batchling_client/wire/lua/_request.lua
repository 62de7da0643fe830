-- Needs _sound.
-- A request in flight is stored as `batch|attempt|mailboxes:runs`: the batch it is in, the attempt it is on, who waits for
--   it, and the runs that asked for it, which count its answer. Records of the first workers end behind the mailboxes.
--   `|batch|attempt` = it was withdrawn from that batch while the batch was open, and its row is still there: asked for
--   again before the seal, it would get a second row and be paid for twice.
-- Who waits: mailboxes, comma separated, the latest to come last. '+' before them stands for earlier ones that were left out:
--   they are not told, look after their answers themselves, and may still wait. Runs are left out likewise.
-- flight(request): its batch, attempt and waiting; or nil, attempt, nil and the batch that it was withdrawn from; or nil.
-- put(request, batch, attempt, waiting, keep_ms): stores it; without `keep_ms` its lifetime stays.
-- withdrawn(request, key, id, attempt): takes it out of a batch that is open or sealed.
-- names(waiting): the list of mailboxes; runs_of(waiting): that of the runs.
-- named(names(waiting), one): whether it is among them.
-- one_more(waiting, mailbox, run): the list with that mailbox and that run too; `mailbox` may be nil.
-- some_left_out(waiting): whether anybody may wait whom the list does not name.
-- batch_key(key, id, other): the key of another batch of this deployment, made from the key and the id of any batch.

-- A client that is killed and started again and again leaves a mailbox behind each time, and a delivery writes to each.
-- Hardly ever do more than this many live at once; a live mailbox that is left out gets its answer seconds later.
local MOST_NAMED = 32

local function flight(request)
  local held = word(request)
  if not held then
    return nil
  end
  local batch, attempt, waiting = string.match(held, '^([%w_-]+)|([^|]*)|(.*)$')
  if batch then
    return batch, attempt, waiting
  end
  batch, attempt = string.match(held, '^|([%w_-]+)|(.*)$')
  return nil, attempt, nil, batch
end

local function put(request, batch, attempt, waiting, keep_ms)
  local place = batch .. '|' .. attempt .. '|' .. waiting
  if keep_ms then
    redis.call('SET', request, place, 'PX', keep_ms)
  else
    redis.call('SET', request, place, 'KEEPTTL')
  end
end

local function withdrawn(request, key, id, attempt)
  if redis.call('HGET', key, 'state') == 'open' then
    put(request, '', id, attempt)
  else
    redis.call('UNLINK', request)
  end
end

local function listed(words)
  local list = {}
  for name in string.gmatch(words, '[%w_-]+') do
    list[#list + 1] = name
  end
  return list
end

-- Requests that were made together are waited for by the same.
local named_in = {}

local function all_in(waiting)
  local found = named_in[waiting]
  if not found then
    local mailboxes, runs = string.match(waiting, '^([^:]*):?(.*)$')
    found = {names = listed(mailboxes), runs = listed(runs)}
    named_in[waiting] = found
  end
  return found
end

local function names(waiting)
  return all_in(waiting).names
end

local function runs_of(waiting)
  return all_in(waiting).runs
end

local function some_left_out(waiting)
  return string.find(waiting, '+', 1, true) ~= nil
end

local function named(list, one)
  for _, name in ipairs(list) do
    if name == one then
      return true
    end
  end
  return false
end

-- The latest of a list, with `last` as the very last, and whether some were left out.
local function latest(list, last)
  local kept = {}
  for _, name in ipairs(list) do
    if name ~= last then
      kept[#kept + 1] = name
    end
  end
  kept[#kept + 1] = last
  local first = math.max(1, #kept - MOST_NAMED + 1)
  return table.concat(kept, ',', first), first > 1
end

local function one_more(waiting, mailbox, run)
  local mailboxes, left_out = latest(names(waiting), mailbox)
  if left_out or some_left_out(waiting) then
    mailboxes = '+,' .. mailboxes
  end
  return mailboxes .. ':' .. latest(runs_of(waiting), run)
end

local function batch_key(key, id, other)
  return string.sub(key, 1, -#id - 1) .. other
end
