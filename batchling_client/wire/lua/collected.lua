-- Stores that every result file of an ended batch was read to its end; it is due for settling at once.
-- KEYS  1 schedule  2 batch
-- ARGV  1 batch_id  2 token  3 error of its end in one sentence, or '': it takes the place of that of a reading
-- Verdicts  'OK'  'STALE'
--@include _clock
--@include _fence
--@include _moved
--@include _room
local schedule, batch = KEYS[1], KEYS[2]
local id, token, err = ARGV[1], ARGV[2], ARGV[3] or ''
if not holds(batch, token) or redis.call('HGET', batch, 'state') ~= 'ended' then
  return 'STALE'
end
local now = now_ms()
go_on_when_full(batch)
redis.call('HSET', batch, 'collected_at', now, 'updated_at', now)
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
