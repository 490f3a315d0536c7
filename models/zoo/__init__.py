"""One short module a method: how its networks are trained on and how its bundle translates."""
