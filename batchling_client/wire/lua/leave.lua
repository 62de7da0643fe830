-- Ends what `enter` let in, where there is no failure to tell: an account that has answered is called freely again.
-- KEYS  for each of circuits: circuit
-- ARGV  1 answered: whatever was counted is forgotten; else no call was made, and only a trial is over
-- Verdict  'OK'
if ARGV[1] == '1' then
  redis.call('UNLINK', unpack(KEYS))
else
  for i = 1, #KEYS do
    redis.call('HDEL', KEYS[i], 'trial_until')
  end
end
return 'OK'
