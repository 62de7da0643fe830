-- Claims those of the given batches that are due: their next look moves a lease away and their token is raised, to the
-- time at least: a Redis that has forgotten its last tokens, after a fail-over, gives out none of them again.
-- KEYS  1 schedule; then a batch each
-- ARGV  1 lease ms; then a batch id each
-- Verdict  a list of {id, token, state, n claims that nobody began, collected_at or ''}; not due = left out.
--@include _clock
--@include _room
local schedule, lease = KEYS[1], tonumber(ARGV[1])
local now, claimed = now_ms(), {}
for i = 2, #KEYS do
  local batch, id = KEYS[i], ARGV[i]
  local due = redis.call('ZSCORE', schedule, id)
  if due and tonumber(due) <= now then
    local state = redis.call('HGET', batch, 'state')
    if not state then
      redis.call('ZREM', schedule, id)
    else
      go_on_when_full(batch)
      redis.call('ZADD', schedule, now + lease, id)
      local token = string.format('%d', math.max(tonumber(redis.call('HGET', batch, 'token')) + 1, now))
      redis.call('HSET', batch, 'token', token)
      local missed = redis.call('HINCRBY', batch, 'missed', 1)
      claimed[#claimed + 1] = {id, token, state, missed, redis.call('HGET', batch, 'collected_at') or ''}
    end
  end
end
return claimed
