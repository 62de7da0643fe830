-- Stores the intent to submit, with the label by which the provider can be searched, before the provider is called.
-- KEYS  1 batch
-- ARGV  1 token  2 label
-- Verdicts  {'OK', label in force}  {'STALE'}
-- States  sealed -> submitting
--@include _clock
--@include _fence
--@include _moved
--@include _room
local batch = KEYS[1]
local token, label = ARGV[1], ARGV[2]
local state = redis.call('HGET', batch, 'state')
if not holds(batch, token) or not (state == 'sealed' or state == 'submitting') then
  return {'STALE'}
end
go_on_when_full(batch)
redis.call('HSETNX', batch, 'label', label)
local now = now_ms()
redis.call('HSET', batch, 'state', 'submitting', 'updated_at', now)
if state == 'sealed' then
  moved(batch, now, 'submission began')
end
return {'OK', redis.call('HGET', batch, 'label')}
