-- Lets a batch that is to be submitted into its quota of enqueued tokens, once for each batch: the sum of own tokens in flight stays under
-- the limit that refusals have taught. Who is in flight is read from the batches' own states: nobody has to sign off.
-- KEYS  1 quota  2 batch  3 lane; then for each of others: batch
-- ARGV  1 batch_id  2 token  3 tokens of the batch  4 divisible: it has several rows, so that it can be split
--       5 account: a digest  6 quota_id  7 turn_ms: how long its turn is kept if it has to wait
--       8 step_ms: the pause between two steps above a limit that is no longer trusted  9 keep_ms; then for
--       each of others, the batches that the caller saw in flight
-- Verdicts  {'OK'} it is in flight from now on
--       {'HELD', n others in flight, their tokens, limit or 0, held until (ms) or 0, why}
--       {'LARGE', limit} it would not fit even alone  {'STALE'}
--@include _clock
--@include _fence
--@include _room
local quota, batch, lane = KEYS[1], KEYS[2], KEYS[3]
local id, token, tokens, divisible = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4] == '1'
local account, quota_id, turn_ms = ARGV[5], ARGV[6], tonumber(ARGV[7])
local step_ms, keep_ms = tonumber(ARGV[8]), tonumber(ARGV[9])
local FIRST_KEY, FIRST_ARG = 3, 9

local own_state = redis.call('HGET', batch, 'state')
if not holds(batch, token) or not (own_state == 'sealed' or own_state == 'submitting') then
  return {'STALE'}
end
local now = now_ms()
go_on_when_full(batch)
for i = 1, #KEYS - FIRST_KEY do
  local state = redis.call('HGET', KEYS[FIRST_KEY + i], 'state')
  if state ~= 'sealed' and state ~= 'submitting' and state ~= 'submitted' then
    redis.call('HDEL', quota, 'in:' .. ARGV[FIRST_ARG + i])
  end
end
local known, n, sum = {}, 0, 0
local flat = redis.call('HGETALL', quota)
for i = 1, #flat, 2 do
  known[flat[i]] = flat[i + 1]
  if string.sub(flat[i], 1, 3) == 'in:' and flat[i] ~= 'in:' .. id then
    n, sum = n + 1, sum + tonumber(string.match(flat[i + 1], '^%d+'))
  end
end
redis.call('HSET', batch, 'quota', quota_id)
if redis.call('EXISTS', lane) == 1 then
  -- Only people read this there: a lane that is damaged must not hold the batch up.
  redis.pcall('HSET', lane, 'account', account, 'quota', quota_id)
end
if known['in:' .. id] then
  return {'OK'}
end

local limit, held_until = tonumber(known['limit']), tonumber(known['held_until'] or '0')
local over = limit ~= nil and sum + tokens > limit
if over and held_until <= now and now >= tonumber(known['trusted_until']) then
  -- An old limit may have been raised: a batch at a time goes above it, and what is taken is the limit from then on.
  limit, over = sum + tokens, false
  redis.call('HSET', quota, 'limit', limit, 'trusted_until', now + step_ms)
end
if over and tokens > limit and divisible then
  return {'LARGE', limit}
end
if over and tokens > limit and n == 0 then
  over = false
end
local turn, turn_until = known['turn'] or '', tonumber(known['turn_until'] or '0')
local others_turn = turn ~= '' and turn < id and turn_until > now
if held_until > now or (limit ~= nil and (over or others_turn)) then
  if not others_turn then
    -- The oldest that waits goes first: without that, small batches would leave no room for a large one for ever.
    redis.call('HSET', quota, 'turn', id, 'turn_until', now + turn_ms)
    redis.call('PEXPIRE', quota, keep_ms)
  end
  return {'HELD', n, sum, limit or 0, held_until > now and held_until or 0, known['why'] or ''}
end
redis.call('HSET', quota, 'in:' .. id, string.format('%d at %d', tokens, now))
if turn == id then
  redis.call('HDEL', quota, 'turn', 'turn_until')
end
redis.call('PEXPIRE', quota, keep_ms)
return {'OK'}
