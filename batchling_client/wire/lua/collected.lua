-- Stores that every result file of an ended batch was read to its end; it is due for settling at once.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch_id  2 token  3 error of its end in one sentence, or '': it takes the place of that of a reading
--       4 n_refused: how many of its requests have a result that is worth another attempt
-- Verdicts  'OK'  'STALE'
--@include _clock
--@include _fence
--@include _moved
--@include _room
local schedule, batch = KEYS[1], KEYS[2]
local id, token, err, n_refused = ARGV[1], ARGV[2], ARGV[3] or '', tonumber(ARGV[4]) or 0
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'ended' then
  return 'STALE'
end
local now = now_ms()
go_on_when_full(batch)
redis.call('HSET', batch, 'collected_at', now, 'updated_at', now)
if n_refused > 0 then
  redis.call('HSET', batch, 'n_refused', n_refused)
else
  redis.call('HDEL', batch, 'n_refused')
end
if redis.call('HDEL', batch, 'unread_since', 'held_since', 'n_unread') > 0 then
  if err ~= '' then
    redis.call('HSET', batch, 'error', err)
  else
    redis.call('HDEL', batch, 'error')
  end
end
let_go(batch, schedule, id, now)
add_to_timeline(batch, now, 'results read')
return 'OK'
