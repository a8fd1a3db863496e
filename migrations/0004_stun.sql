-- HOST:PORT at which a satellite answers STUN; null where it does not.
ALTER TABLE satellites ADD COLUMN stun text;
