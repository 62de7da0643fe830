-- Stores what a refusal taught of a quota of enqueued tokens, once for each batch; the batch is no longer in flight.
-- A limit that is trusted still is only ever lowered.
-- KEYS  1 quota
-- ARGV  1 batch_id  2 limit, 0 = none was learned  3 alone: nothing else of ours was in flight  4 hold_ms: how long to hold
--       the quota then  5 trusted_ms: for how long the limit is trusted  6 row_ms: after how long without a refusal a row
--       of them ends  7 why, in one sentence  8 keep_ms
-- Verdict  {refusals in a row with nothing else in flight, ms since the first of them}
--@include _clock
--@include _room
local quota = KEYS[1]
local id, limit, alone, hold_ms = ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1', tonumber(ARGV[4])
local trusted_ms, row_ms, why, keep_ms = tonumber(ARGV[5]), tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[8])
local now = now_ms()
go_on_when_full(quota)
if redis.call('HDEL', quota, 'in:' .. id) == 1 then
  local held = redis.call('HMGET', quota, 'limit', 'trusted_until', 'alone_at')
  if limit > 0 then
    if held[1] and now < tonumber(held[2]) then
      limit = math.min(limit, tonumber(held[1]))
    end
    redis.call('HSET', quota, 'limit', limit, 'limit_at', now, 'trusted_until', now + trusted_ms)
  end
  redis.call('HSET', quota, 'why', why)
  if not alone or (held[3] and now - tonumber(held[3]) > row_ms) then
    redis.call('HDEL', quota, 'alone_since', 'n_alone')
  end
  if alone then
    redis.call('HSETNX', quota, 'alone_since', now)
    redis.call('HINCRBY', quota, 'n_alone', 1)
    redis.call('HSET', quota, 'alone_at', now, 'held_until', now + hold_ms)
  end
  redis.call('PEXPIRE', quota, keep_ms)
end
local row = redis.call('HMGET', quota, 'n_alone', 'alone_since')
return {tonumber(row[1] or '0'), row[2] and now - tonumber(row[2]) or 0}
