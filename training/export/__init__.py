"""From a run to the bundle that the station loads, with proof that int8 says what the float network said."""
