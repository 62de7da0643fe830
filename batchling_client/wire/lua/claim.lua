-- Claims those of the given batches that are due: their next look moves a lease away and their token is raised, to the
-- time at least: a Redis that has forgotten its last tokens, after a fail-over, gives out none of them again.
-- KEYS  1 schedule; then for each of batch_ids: batch
-- ARGV  1 lease_ms; then for each of batch_ids
-- Verdict  a list of {id, token, state, n claims that nobody began, collected_at or ''}; not due = left out. If a batch's
--       key holds another type than a hash, token and state are '': nobody can claim it.
--@include _clock
--@include _room
--@include _sound
local schedule, lease = KEYS[1], tonumber(ARGV[1])
local now, claimed = now_ms(), {}
for i = 2, #KEYS do
  local batch, id = KEYS[i], ARGV[i]
  local due = redis.call('ZSCORE', schedule, id)
  if due and tonumber(due) <= now then
    if redis.call('EXISTS', batch) == 0 then
      redis.call('ZREM', schedule, id)
    elseif not of_type(batch, 'hash') then
      redis.call('ZADD', schedule, now + lease, id)
      claimed[#claimed + 1] = {id, '', '', 0, ''}
    else
      go_on_when_full(batch)
      redis.call('ZADD', schedule, now + lease, id)
      local held = redis.call('HMGET', batch, 'token', 'state', 'collected_at')
      local last = tonumber(held[1] or '') or 0
      if not (last >= 0 and last < 2 ^ 53) then
        -- No token of ours, so that nobody holds it; the time is above every token there was.
        last = 0
      end
      local token = string.format('%d', math.max(last + 1, now))
      redis.call('HSET', batch, 'token', token)
      redis.call('HDEL', batch, 'silence')
      claimed[#claimed + 1] = {id, token, held[2] or '', count(batch, 'missed', 1), held[3] or ''}
    end
  end
end
return claimed
