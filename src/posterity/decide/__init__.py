"""What to do about uncertainty, with a guarantee: sets and intervals, abstention, temperature, how unusual an input is.

And without one: which input to label next.
"""

from posterity.decide.abstain import Abstention as Abstention
from posterity.decide.abstain import abstain as abstain
from posterity.decide.abstain import choose_threshold as choose_threshold
from posterity.decide.acquire import choose as choose
from posterity.decide.anomaly import neighbour_distance as neighbour_distance
from posterity.decide.anomaly import p_value as p_value
from posterity.decide.anomaly import uncertainty as uncertainty
from posterity.decide.conformal import ConformalIntervals as ConformalIntervals
from posterity.decide.conformal import ConformalSets as ConformalSets
from posterity.decide.conformal import calibrate as calibrate
from posterity.decide.nonconformity import APS as APS
from posterity.decide.nonconformity import RAPS as RAPS
from posterity.decide.nonconformity import THR as THR
from posterity.decide.nonconformity import AbsoluteResidual as AbsoluteResidual
from posterity.decide.nonconformity import QuantileResidual as QuantileResidual
from posterity.decide.nonconformity import ScaledResidual as ScaledResidual
from posterity.decide.simulate import Plan as Plan
from posterity.decide.simulate import Round as Round
from posterity.decide.simulate import labels_needed as labels_needed
from posterity.decide.simulate import simulate as simulate
from posterity.decide.temperature import Temperature as Temperature
