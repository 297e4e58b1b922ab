"""From a submission to its end: what is accepted, announced, followed and waited for."""
