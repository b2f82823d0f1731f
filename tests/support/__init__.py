"""What tests of several rooms share: one fake of each kind, real servers, example runs."""
